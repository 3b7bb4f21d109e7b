"""Which event touches what: the last step from compiled parts to a plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.core.campaign import Campaign
from app.core.expression_context import ANY_EVENT, TRAITS_EVENT, Expression
from app.core.percentiles import Measured, joined
from app.core.plan import EventPlan, Feature, Plan, Segment, event_id
from app.core.scores import open_score


@dataclass(frozen=True, slots=True)
class Compiled:
    """The parts of a policy: segments in the order of evaluation, campaigns, and what their conditions read."""

    segments: tuple[Segment, ...]
    campaigns: tuple[Campaign, ...]
    conditions: tuple[Expression, ...]
    audiences: tuple[Expression, ...]

    def features(self) -> tuple[Feature, ...]:
        """Every feature once, in the order in which conditions first name them."""
        by_text: dict[str, Feature] = {}
        for expression in (*self.conditions, *self.audiences):
            for feature in expression.features:
                by_text.setdefault(feature.text, feature)
        return tuple(by_text.values())

    def open_scores(self) -> frozenset[str]:
        """Campaigns and categories (empty: all) that the open model is asked about."""
        nobody: frozenset[str] = frozenset()
        return nobody.union(*(expression.open_scores for expression in (*self.conditions, *self.audiences)))

    def campaigns_of(self, name: str) -> tuple[Campaign, ...]:
        """The campaign of that name, or those of the category; all that are not transactional when it is empty."""
        if not name:
            return tuple(part for part in self.campaigns if not part.transactional) or self.campaigns
        named = tuple(part for part in self.campaigns if part.name == name)
        return named or tuple(part for part in self.campaigns if part.category == name)

    def measured(self) -> tuple[Measured, ...]:
        """Every number whose percentiles are asked for, once, with all of its thresholds."""
        return joined(one for expression in (*self.conditions, *self.audiences) for one in expression.measured)

    def event_names(self) -> frozenset[str]:
        """Every event that the policy mentions."""
        names: set[str] = set()
        for expression in (*self.conditions, *self.audiences):
            names |= expression.events
        for campaign in self.campaigns:
            names |= {campaign.trigger.event} | campaign.trigger.cancel
        return frozenset(names - {"", ANY_EVENT, TRAITS_EVENT})

    def collisions(self) -> Iterable[str]:
        """Names that fall on one 32-bit id: rare beyond hope, but it would mix two users' facts."""
        yield from _collisions("features", [(feature.id, feature.text) for feature in self.features()])
        cuts = [(cut.id, f"{cut.name} of {one.text}") for one in self.measured() for cut in one.cuts]
        yield from _collisions("percentiles", cuts)
        yield from _collisions("segments", [(segment.id, segment.name) for segment in self.segments])
        yield from _collisions("campaigns", [(campaign.id, campaign.name) for campaign in self.campaigns])
        yield from _collisions("categories", [(campaign.category_id, campaign.category) for campaign in self.campaigns])
        yield from _collisions("events", [(event_id(name), name) for name in sorted(self.event_names())])


def _collisions(kind: str, named: list[tuple[int, str]]) -> Iterable[str]:
    first: dict[int, str] = {}
    for number, name in named:
        if first.setdefault(number, name) != name:
            yield f"{kind} {first[number]!r} and {name!r} have the same id: rename one"


def assemble(compiled: Compiled, plan: Plan) -> Plan:
    """`plan` with the compiled parts, and what each event touches."""
    on_segment: dict[str, tuple[Campaign, ...]] = {}
    for campaign in compiled.campaigns:
        if name := campaign.trigger.segment:
            on_segment[name] = (*on_segment.get(name, ()), campaign)
    return replace(
        plan,
        segments=compiled.segments,
        features=compiled.features(),
        campaigns=compiled.campaigns,
        events={name: _event_plan(compiled, name) for name in sorted(compiled.event_names())},
        other=_event_plan(compiled, ANY_EVENT),
        on_traits=replace(_event_plan(compiled, TRAITS_EVENT), features=()),
        segment_by_id={segment.id: segment for segment in compiled.segments},
        campaign_by_id={campaign.id: campaign for campaign in compiled.campaigns},
        on_segment=on_segment,
        measured=compiled.measured(),
        open_scores={open_score(name): compiled.campaigns_of(name) for name in sorted(compiled.open_scores())},
    )


def _event_plan(compiled: Compiled, name: str) -> EventPlan:
    touched = {name, ANY_EVENT}
    triggers = tuple(campaign for campaign in compiled.campaigns if _triggers_on(campaign, name))
    return EventPlan(
        features=tuple(feature for feature in compiled.features() if feature.event in touched),
        segments=tuple(segment for segment in compiled.segments if segment.events & touched),
        triggers=triggers,
        cancels=tuple(campaign for campaign in compiled.campaigns if name in campaign.trigger.cancel),
    )


def _triggers_on(campaign: Campaign, name: str) -> bool:
    trigger = campaign.trigger
    if trigger.kind == "dormancy" and not trigger.event:
        return True
    return trigger.kind in ("event", "absence", "dormancy") and trigger.event == name
