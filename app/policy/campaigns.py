"""From what a policy says of a campaign to what the core reads, with every mistake in it noted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.core.campaign import Campaign, Recommend, Reward, Trigger, Variant
from app.core.catalog import FACTS
from app.core.cron import cron_problem
from app.core.expression_context import Expression
from app.core.expression_errors import ExpressionErrors, nearest
from app.core.expression_parser import properties_read
from app.core.items import SEGMENTS_MAX
from app.core.lengths import limits_of
from app.core.locales import localized
from app.core.render import FieldError, MessageTemplate
from app.policy.campaign_parts import catalog_trigger, more_roots, novelty, recommendation, send_time
from app.policy.errors import Path
from app.policy.model import (
    CampaignModel,
    Defaults,
    RecommendModel,
    RewardModel,
    TemplateModel,
    TriggerModel,
    WordingModel,
)
from app.policy.scope import Scope

CONVERSION_WINDOW_MS: Final = 3 * 86_400_000


class CampaignCompiler:
    """Compiles campaigns one by one; mistakes go to the scope."""

    def __init__(self, scope: Scope, defaults: Defaults) -> None:
        self._scope = scope
        self._label_horizon_ms = defaults.label_horizon
        self._limits = limits_of(defaults.providers)
        self._counted: set[str] = set()

    def campaign(self, path: Path, model: CampaignModel) -> tuple[Campaign, list[Expression]]:
        """The campaign, and the conditions that its audience and its variants are."""
        conditions: list[Expression] = []
        audience = None if model.audience is None else self._scope.expression((*path, "audience"), model.audience)
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
            recommend=self._recommend((*path, "recommend"), model.recommend),
            reward=self._reward((*path, "reward"), model.reward),
        )
        return campaign, conditions if audience is None else [audience, *conditions]

    def _recommend(self, path: Path, model: RecommendModel | None) -> Recommend | None:
        """The recommendation slot; all slots together name no more segments than the learner counts for."""
        for at, name in enumerate(() if model is None else model.segment):
            self._scope.check_segment((*path, "segment", at), name)
            self._counted.add(name)
            if len(self._counted) > SEGMENTS_MAX:
                message = f"recommendations name more than {SEGMENTS_MAX} segments, all campaigns together"
                self._scope.refuse((*path, "segment", at), message)
        return recommendation(model)

    def _reward(self, path: Path, model: RewardModel) -> Reward | None:
        """None for the open as its example learns it: the default waits for nothing else."""
        if model.kind == "open" and model.within is None and not model.opt_out_penalty:
            return None
        horizon_ms = self._label_horizon_ms
        if model.kind != "conversion":
            return Reward(model.kind, model.within or horizon_ms, opt_out_penalty=model.opt_out_penalty)
        self._scope.check_event((*path, "event"), model.event)
        return Reward(
            "conversion",
            model.within or CONVERSION_WINDOW_MS,
            event=model.event,
            value=model.value or "",
            value_max=model.value_max or 1.0,
            opt_out_penalty=model.opt_out_penalty,
        )

    def _check_facts(self, path: Path, text: str | None) -> None:
        """A condition over an item reads the facts that there are of one."""
        try:
            read = properties_read(text) if text is not None else ()
        except ExpressionErrors:
            return  # reported as what it is
        for name, offset in read:
            if name not in FACTS:
                known = ", ".join(sorted(FACTS))
                message = f"unknown fact {name!r} of an item; there are {known}"
                self._scope.refuse_text(path, offset, message, nearest(name, FACTS))

    def _trigger(self, path: Path, model: TriggerModel) -> Trigger:
        where = self._scope.where((*path, "where"), model.where)
        if model.absence is not None:
            absence = model.absence
            self._scope.check_event((*path, "absence", "after"), absence.after)
            for at, name in enumerate(absence.without):
                self._scope.check_event((*path, "absence", "without", at), name)
            return Trigger("absence", absence.after, where, absence.for_, frozenset(absence.without), absence.key)
        if model.dormancy is not None:
            if model.dormancy.event:
                self._scope.check_event((*path, "dormancy", "event"), model.dormancy.event)
            return Trigger("dormancy", model.dormancy.event, wait_ms=model.dormancy.for_)
        if model.schedule is not None:
            if problem := cron_problem(model.schedule.cron):
                self._scope.refuse((*path, "schedule", "cron"), problem)
            return Trigger("schedule", cron=model.schedule.cron, spread_ms=model.schedule.spread)
        if (changed := catalog_trigger(model, where)) is not None:
            self._check_facts((*path, "where"), model.where)
            return changed
        if model.event is not None:
            self._scope.check_event((*path, "event"), model.event)
            return Trigger("event", model.event, where)
        change, segment = ("enter", model.enter) if model.enter is not None else ("leave", model.leave)
        assert segment is not None, "the model allows exactly one kind"
        self._scope.check_segment((*path, change), segment)
        return Trigger("enter" if change == "enter" else "leave", segment=segment)

    def _variants(self, path: Path, model: CampaignModel, conditions: list[Expression]) -> Iterable[Variant]:
        self._scope.check_unique((*path, "variants"), [(at, variant.name) for at, variant in enumerate(model.variants)])
        also = more_roots(model)
        if model.template is not None:
            yield from self._variant((*path, "template"), "default", 1.0, model.template, also=also)
        for at, variant in enumerate(model.variants):
            place = (*path, "variants", at)
            when = None if variant.when is None else self._scope.expression((*place, "when"), variant.when)
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
        known = {tag: template.render for tag, template in others.items() if template is not None}
        eligible = None if when is None else when.evaluate
        if known:  # which wording it is depends on what the context says of the user
            yield Variant(name, weight, localized(default.render, known), eligible)
        else:
            yield Variant(name, weight, default.render, eligible, default.roots)

    def _wording(
        self, path: Path, model: TemplateModel | WordingModel, deep_link: str, *, also: frozenset[str]
    ) -> MessageTemplate | None:
        try:
            return MessageTemplate(model.title, model.body, deep_link, self._limits, also=also)
        except FieldError as exc:
            self._scope.refuse_text((*path, exc.field), exc.offset, exc.message, exc.suggestion)
            return None


def _link(wording: WordingModel, model: TemplateModel) -> str:
    return model.deep_link if wording.deep_link is None else wording.deep_link
