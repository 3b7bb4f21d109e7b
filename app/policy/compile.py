"""From a validated policy to the plan that the core reads, or to every mistake in it."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import cast
from zoneinfo import available_timezones

from app.core.expression_context import Expression, ExpressionContext
from app.core.expression_errors import ExpressionErrors, nearest
from app.core.expressions import referenced_segments
from app.core.hysteresis import with_hysteresis
from app.core.ids import stable_id
from app.core.plan import AdaptiveCaps, Cap, ModelPlan, PersonaPlan, Plan, QuietHours, RfmGrid, Segment
from app.core.rfm import Cuts, Lifecycle
from app.policy.assemble import Compiled, assemble
from app.policy.campaigns import CampaignCompiler
from app.policy.errors import PolicyErrors
from app.policy.event_names import STANDARD_EVENTS
from app.policy.model import PersonasModel, SegmentModel
from app.policy.scope import BROKEN, Scope
from app.policy.shape import Shaped
from app.policy.source import Document


class Compiler:
    """Compiles one policy file; `errors` collects what is wrong, after what was wrong already."""

    def __init__(self, document: Document, shaped: Shaped) -> None:
        self.document = document
        self.policy = shaped.head
        self.shaped = shaped
        self.errors = list(shaped.errors)
        self._expressions = dict.fromkeys(shaped.broken_segments, BROKEN)
        self._context = self._make_context()
        self._scope = Scope(document, self._context, self.errors)

    def compile(self, version: str) -> Plan:
        """The plan. Raises `PolicyErrors`."""
        self._check_names()
        self._check_models()
        self._check_defaults()
        segments = tuple(self._segments())
        campaigns = []
        audiences: list[Expression] = []
        compiler = CampaignCompiler(self._scope, self.policy.defaults)
        for at, model in self.shaped.campaigns:
            campaign, conditions = compiler.campaign(("campaigns", at), model)
            campaigns.append(campaign)
            audiences += conditions
        compiled = Compiled(segments, tuple(campaigns), tuple(self._expressions.values()), tuple(audiences))
        if not self.errors:
            self.errors += [self.document.error((), message) for message in compiled.collisions()]
        if self.errors:
            raise PolicyErrors(self.errors)
        return assemble(compiled, self._plan(version))

    def _make_context(self) -> ExpressionContext:
        policy, defaults = self.policy, self.policy.defaults
        lifecycle = defaults.lifecycle
        return ExpressionContext(
            default_timezone=defaults.timezone if defaults.timezone in available_timezones() else "UTC",
            rfm=self._rfm(),
            lifecycle=Lifecycle(
                lifecycle.new_for, lifecycle.at_risk_after, lifecycle.dormant_after, lifecycle.lost_after
            ),
            traits={name: trait.default for name, trait in policy.traits.items()},
            segments=self._expressions,
            segment_names=self.shaped.broken_segments.union(segment.name for _, segment in self.shaped.segments),
            flags=policy.flags,
            campaigns={model.name: model.category for _, model in self.shaped.campaigns}
            | dict.fromkeys(self.shaped.broken_campaigns, "")
            | {category: category for category in self.shaped.broken_categories},
            personas=policy.personas is not None,
            models=frozenset(name for name, model in policy.models.items() if model.horizon is not None),
            open_model=defaults.model,
            event_names=None if policy.events is None else STANDARD_EVENTS.union(policy.events),
        )

    def _rfm(self) -> RfmGrid:
        cuts = self.policy.defaults.rfm
        return RfmGrid(
            recency_days=cast("Cuts", tuple(cuts.recency_days)),
            frequency=cast("Cuts", tuple(cuts.frequency)),
            monetary=cast("Cuts", tuple(cuts.monetary)),
        )

    def _plan(self, version: str) -> Plan:
        defaults = self.policy.defaults
        quiet = defaults.quiet_hours
        adaptive = defaults.adaptive_caps
        groups = self.policy.personas
        return Plan(
            version=version,
            name=self.policy.name,
            caps=tuple(Cap(cap.limit, cap.window, cap.category) for cap in defaults.caps),
            quiet_hours=QuietHours(quiet.start, quiet.end) if quiet else None,
            default_timezone=defaults.timezone,
            consent_required=defaults.consent == "required",
            holdout_share=defaults.holdout.share,
            holdout_salt=defaults.holdout.salt,
            rfm=self._context.rfm,
            model=defaults.model,
            segment_users_min=defaults.segment_users_min,
            label_horizon_ms=defaults.label_horizon,
            opens_wait=defaults.learn_opens == "at_horizon",
            late_opens_ms=defaults.late_opens,
            traits=tuple(self.policy.models[defaults.model].traits) if defaults.model in self.policy.models else (),
            adaptive=AdaptiveCaps(adaptive.floor, adaptive.half_life) if adaptive else None,
            suppressed_share=defaults.suppressed_share,
            grace_ms=defaults.grace,
            future_skew_ms=defaults.future_skew,
            age_max_ms=defaults.age_max,
            context=self._context,
            models={
                name: ModelPlan(part.kind, part.challenger or "", part.on_drift, part.event or "", part.horizon or 0)
                for name, part in self.policy.models.items()
            },
            personas=_personas(groups),
            warnings=self._scope.warnings(),
            event_places=self._scope.event_places(),
        )

    def _check_models(self) -> None:
        for name, model in self.policy.models.items():
            if model.event is not None:
                self._scope.check_event(("models", name, "event"), model.event)
            if model.traits and name != self.policy.defaults.model:
                self._scope.refuse(("models", name, "traits"), "only the model of opens is told traits")
            if model.horizon is not None and name == self.policy.defaults.model:
                self._scope.refuse(
                    ("models", name, "horizon"), f"{name!r} learns opens: their horizon is label_horizon"
                )

    def _check_names(self) -> None:
        self._scope.check_unique(("segments",), [(at, segment.name) for at, segment in self.shaped.segments])
        self._scope.check_unique(("campaigns",), [(at, campaign.name) for at, campaign in self.shaped.campaigns])

    def _check_defaults(self) -> None:
        timezone = self.policy.defaults.timezone
        if timezone not in available_timezones():
            message = f"unknown time zone {timezone!r}; write an IANA name such as America/New_York"
            self._scope.refuse(("defaults", "timezone"), message, nearest(timezone, available_timezones()))
        categories = self.shaped.broken_categories.union(model.category for _, model in self.shaped.campaigns)
        for at, cap in enumerate(self.policy.defaults.caps):
            if cap.category and cap.category not in categories:
                path = ("defaults", "caps", at, "category")
                self._scope.refuse(
                    path, f"no campaign has category {cap.category!r}", nearest(cap.category, categories)
                )

    def _segments(self) -> Iterable[Segment]:
        """Those that others name come first."""
        by_name: dict[str, list[tuple[int, SegmentModel]]] = {}
        for at, segment in self.shaped.segments:
            by_name.setdefault(segment.name, []).append((at, segment))
        for name in self._order():
            for at, model in by_name[name]:
                yield self._segment(at, model)

    def _segment(self, at: int, model: SegmentModel) -> Segment:
        expression = self._scope.expression(("segments", at, "when"), model.when)
        if model.until is not None or model.stay:
            until = None if model.until is None else self._scope.expression(("segments", at, "until"), model.until)
            expression = with_hysteresis(stable_id(model.name), expression, until, model.stay)
        self._expressions[model.name] = expression
        return Segment(
            name=model.name,
            expression=model.when,
            evaluate=expression.evaluate,
            next_change=expression.next_change,
            events=expression.events,
            description=model.description,
            reads_clock=expression.clocked,
            condition=expression.condition,
            features=frozenset(feature.id for feature in expression.features),
            cuts=expression.cuts,
            until=model.until or "",
            stay_ms=model.stay,
            users_min=self.policy.defaults.segment_users_min if model.minimum_size is None else model.minimum_size,
        )

    def _order(self) -> list[str]:
        graph: dict[str, set[str]] = {segment.name: set() for _, segment in self.shaped.segments}
        for _, segment in self.shaped.segments:
            try:
                for text in (segment.when, segment.until):
                    if text is not None:
                        graph[segment.name] |= referenced_segments(text) & graph.keys()
            except ExpressionErrors:
                continue  # reported when it is compiled
        while True:
            try:
                return list(TopologicalSorter(graph).static_order())
            except CycleError as exc:
                self._cut(graph, list(reversed(exc.args[1])))

    def _cut(self, graph: dict[str, set[str]], cycle: list[str]) -> None:
        """Report a circle of segments and open it, so that the rest can be checked."""
        at = next(at for at, segment in self.shaped.segments if segment.name == cycle[0])
        self._scope.refuse(("segments", at, "when"), f"segments name each other in a circle: {' → '.join(cycle)}")
        self._expressions.update(dict.fromkeys(cycle, BROKEN))
        graph[cycle[0]] = set()


def _personas(model: PersonasModel | None) -> PersonaPlan | None:
    if model is None:
        return None
    return PersonaPlan(model.count_max, model.share_min, model.names, model.count_min)
