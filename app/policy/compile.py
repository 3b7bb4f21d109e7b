"""From a validated policy to the plan that the core reads, or to every mistake in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Final, TypeVar, cast
from zoneinfo import available_timezones

from app.core.campaign import Campaign, Reward, Trigger, Variant, Where
from app.core.cron import cron_problem
from app.core.expression_context import Expression, ExpressionContext
from app.core.expression_errors import ExpressionErrors, nearest
from app.core.expressions import compile_expression, compile_where, referenced_segments
from app.core.hysteresis import with_hysteresis
from app.core.ids import stable_id
from app.core.lengths import limits_of
from app.core.locales import Render, localized
from app.core.panes import NEVER_MS
from app.core.plan import AdaptiveCaps, Cap, ModelPlan, PersonaPlan, Plan, QuietHours, RfmGrid, Segment
from app.core.profile import Profile
from app.core.render import FieldError, MessageTemplate
from app.core.rfm import Cuts, Lifecycle
from app.policy.assemble import Compiled, assemble
from app.policy.campaign_parts import catalog_trigger, more_roots, novelty, recommendation, send_time
from app.policy.errors import Path, PolicyErrors
from app.policy.model import (
    CampaignModel,
    PersonasModel,
    RewardModel,
    SegmentModel,
    TemplateModel,
    TriggerModel,
    WordingModel,
)
from app.policy.shape import Shaped
from app.policy.source import Document
from schemas import events

Made = TypeVar("Made")
CONVERSION_WINDOW_MS: Final = 3 * 86_400_000

STANDARD_EVENTS: Final = frozenset(
    {
        events.NOTIFICATION_SENT,
        "Notification Delivered",
        events.NOTIFICATION_OPENED,
        events.NOTIFICATION_CLICKED,
        events.NOTIFICATION_DISMISSED,
        events.NOTIFICATION_FAILED,
        events.NOTIFICATIONS_ENABLED,
        events.NOTIFICATIONS_DISABLED,
        events.APPLICATION_OPENED,
        events.PRODUCT_VIEWED,
        events.PRODUCT_ADDED,
        events.ORDER_COMPLETED,
    }
)


def _nobody(profile: Profile, now_ms: int, user: str) -> bool:
    return False


def _never(profile: Profile, now_ms: int, user: str) -> int:
    return NEVER_MS


# Stands for a segment that has a mistake of its own, so that those that name it are not blamed for it.
_BROKEN: Final = Expression("", _nobody, _never, (), frozenset(), clocked=False)


class Compiler:
    """Compiles one policy file; `errors` collects what is wrong, after what was wrong already."""

    def __init__(self, document: Document, shaped: Shaped) -> None:
        self.document = document
        self.policy = shaped.head
        self.shaped = shaped
        self.errors = list(shaped.errors)
        self._expressions = dict.fromkeys(shaped.broken_segments, _BROKEN)
        self._names = shaped.broken_segments.union(segment.name for _, segment in shaped.segments)
        self._context = self._make_context()
        self._limits = limits_of(self.policy.defaults.providers)

    def compile(self, version: str) -> Plan:
        """The plan. Raises `PolicyErrors`."""
        self._check_names()
        self._check_models()
        self._check_defaults()
        segments = tuple(self._segments())
        campaigns = []
        audiences: list[Expression] = []
        for at, model in self.shaped.campaigns:
            campaign, conditions = self._campaign(("campaigns", at), model)
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
            segment_names=self._names,
            flags=policy.flags,
            campaigns={model.name: model.category for _, model in self.shaped.campaigns}
            | dict.fromkeys(self.shaped.broken_campaigns, "")
            | {category: category for category in self.shaped.broken_categories},
            personas=policy.personas is not None,
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
        )

    def _check_models(self) -> None:
        for name, model in self.policy.models.items():
            if model.event is not None:
                self._check_event(("models", name, "event"), model.event)
            if model.traits and name != self.policy.defaults.model:
                self._refuse(("models", name, "traits"), "only the model of opens is told traits")
            if model.horizon is not None and name == self.policy.defaults.model:
                self._refuse(("models", name, "horizon"), f"{name!r} learns opens: their horizon is label_horizon")

    def _refuse(self, path: Path, message: str, suggestion: str = "") -> None:
        self.errors.append(self.document.error(path, message, suggestion))

    def _check_names(self) -> None:
        self._check_unique(("segments",), [(at, segment.name) for at, segment in self.shaped.segments])
        self._check_unique(("campaigns",), [(at, campaign.name) for at, campaign in self.shaped.campaigns])

    def _check_unique(self, path: Path, named: Iterable[tuple[int, str]]) -> None:
        first: dict[str, int] = {}
        for at, name in named:
            if first.setdefault(name, at) != at:
                self._refuse((*path, at, "name"), f"{name!r} is {path[-1]}[{first[name]}] already")

    def _check_defaults(self) -> None:
        timezone = self.policy.defaults.timezone
        if timezone not in available_timezones():
            message = f"unknown time zone {timezone!r}; write an IANA name such as America/New_York"
            self._refuse(("defaults", "timezone"), message, nearest(timezone, available_timezones()))
        categories = self.shaped.broken_categories.union(model.category for _, model in self.shaped.campaigns)
        for at, cap in enumerate(self.policy.defaults.caps):
            if cap.category and cap.category not in categories:
                path = ("defaults", "caps", at, "category")
                self._refuse(path, f"no campaign has category {cap.category!r}", nearest(cap.category, categories))

    def _expression(self, path: Path, text: str) -> Expression:
        return self._guarded(path, lambda: compile_expression(text, self._context, ".".join(map(str, path)))) or _BROKEN

    def _where(self, path: Path, text: str | None) -> Where | None:
        return None if text is None else self._guarded(path, lambda: compile_where(text, self._context))

    def _guarded(self, path: Path, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except ExpressionErrors as exc:
            for error in exc.errors:
                place = self.document.error_in_text(path, error.offset, error.message, error.suggestion)
                self.errors.append(place)
            return None

    def _segments(self) -> Iterable[Segment]:
        """Those that others name come first."""
        by_name: dict[str, list[tuple[int, SegmentModel]]] = {}
        for at, segment in self.shaped.segments:
            by_name.setdefault(segment.name, []).append((at, segment))
        for name in self._order():
            for at, model in by_name[name]:
                yield self._segment(at, model)

    def _segment(self, at: int, model: SegmentModel) -> Segment:
        expression = self._expression(("segments", at, "when"), model.when)
        if model.until is not None or model.stay:
            until = None if model.until is None else self._expression(("segments", at, "until"), model.until)
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
        self._refuse(("segments", at, "when"), f"segments name each other in a circle: {' → '.join(cycle)}")
        self._expressions.update(dict.fromkeys(cycle, _BROKEN))
        graph[cycle[0]] = set()

    def _campaign(self, path: Path, model: CampaignModel) -> tuple[Campaign, list[Expression]]:
        """The campaign, and the conditions that its audience and its variants are."""
        conditions: list[Expression] = []
        audience = None if model.audience is None else self._expression((*path, "audience"), model.audience)
        campaign = Campaign(
            name=model.name,
            category=model.category,
            trigger=self._trigger((*path, "trigger"), model.trigger),
            variants=tuple(self._variants(path, model, conditions)),
            audience=None if audience is None else audience.evaluate,
            audience_text=model.audience or "",
            value=model.value,
            cost=model.cost,
            transactional=model.transactional,
            expires_ms=model.expires,
            cool_down_ms=model.cool_down or 0,
            quiet_hours=model.quiet_hours,
            experiment=model.experiment,
            choose=model.choose,
            explore=model.explore,
            novelty=novelty(model.novelty),
            holdout_share=model.holdout,
            opt_out_limit=model.opt_out_limit,
            send_time=send_time(model.send_time),
            recommend=recommendation(model.recommend),
            reward=self._reward((*path, "reward"), model.reward),
        )
        return campaign, conditions if audience is None else [audience, *conditions]

    def _reward(self, path: Path, model: RewardModel) -> Reward | None:
        """None for the open as its example learns it: the default waits for nothing else."""
        if model.kind == "open" and model.within is None and not model.opt_out_penalty:
            return None
        horizon_ms = self.policy.defaults.label_horizon
        if model.kind != "conversion":
            return Reward(model.kind, model.within or horizon_ms, opt_out_penalty=model.opt_out_penalty)
        self._check_event((*path, "event"), model.event)
        return Reward(
            "conversion",
            model.within or CONVERSION_WINDOW_MS,
            event=model.event,
            value=model.value or "",
            value_max=model.value_max or 1.0,
            opt_out_penalty=model.opt_out_penalty,
        )

    def _trigger(self, path: Path, model: TriggerModel) -> Trigger:
        where = self._where((*path, "where"), model.where)
        if model.absence is not None:
            absence = model.absence
            self._check_event((*path, "absence", "after"), absence.after)
            for at, name in enumerate(absence.without):
                self._check_event((*path, "absence", "without", at), name)
            return Trigger("absence", absence.after, where, absence.for_, frozenset(absence.without), absence.key)
        if model.dormancy is not None:
            if model.dormancy.event:
                self._check_event((*path, "dormancy", "event"), model.dormancy.event)
            return Trigger("dormancy", model.dormancy.event, wait_ms=model.dormancy.for_)
        if model.schedule is not None:
            if problem := cron_problem(model.schedule.cron):
                self._refuse((*path, "schedule", "cron"), problem)
            return Trigger("schedule", cron=model.schedule.cron, spread_ms=model.schedule.spread)
        if (changed := catalog_trigger(model, where)) is not None:
            return changed
        if model.event is not None:
            self._check_event((*path, "event"), model.event)
            return Trigger("event", model.event, where)
        change, segment = ("enter", model.enter) if model.enter is not None else ("leave", model.leave)
        assert segment is not None, "the model allows exactly one kind"
        if segment not in self._names:
            self._refuse((*path, change), f"unknown segment {segment!r}", nearest(segment, self._names))
        return Trigger("enter" if change == "enter" else "leave", segment=segment)

    def _check_event(self, path: Path, name: str) -> None:
        known = self._context.event_names
        if known is not None and name not in known:
            self._refuse(path, f"unknown event {name!r} (the policy lists its events)", nearest(name, known))

    def _variants(self, path: Path, model: CampaignModel, conditions: list[Expression]) -> Iterable[Variant]:
        self._check_unique((*path, "variants"), [(at, variant.name) for at, variant in enumerate(model.variants)])
        also = more_roots(model)
        if model.template is not None:
            yield from self._variant((*path, "template"), "default", 1.0, model.template, also=also)
        for at, variant in enumerate(model.variants):
            place = (*path, "variants", at)
            when = None if variant.when is None else self._expression((*place, "when"), variant.when)
            conditions += [] if when is None else [when]
            yield from self._variant(place, variant.name, variant.weight, variant, when, also=also)

    def _variant(
        self,
        path: Path,
        name: str,
        weight: float,
        model: TemplateModel,
        when: Expression | None = None,
        *,
        also: frozenset[str],
    ) -> Iterable[Variant]:
        default = self._wording(path, model, model.deep_link, also=also)
        others = {
            tag: self._wording((*path, "locales", tag), wording, _link(wording, model), also=also)
            for tag, wording in model.locales.items()
        }
        if default is None:
            return
        known = {tag: render for tag, render in others.items() if render is not None}
        eligible = None if when is None else when.evaluate
        yield Variant(name, weight, localized(default, known) if known else default, eligible)

    def _wording(
        self, path: Path, model: TemplateModel | WordingModel, deep_link: str, *, also: frozenset[str]
    ) -> Render | None:
        try:
            return MessageTemplate(model.title, model.body, deep_link, self._limits, also=also).render
        except FieldError as exc:
            place = self.document.error_in_text((*path, exc.field), exc.offset, exc.message, exc.suggestion)
            self.errors.append(place)
            return None


def _personas(model: PersonasModel | None) -> PersonaPlan | None:
    if model is None:
        return None
    return PersonaPlan(model.count_max, model.share_min, model.names, model.count_min)


def _link(wording: WordingModel, model: TemplateModel) -> str:
    return model.deep_link if wording.deep_link is None else wording.deep_link
