"""Plans built by hand, so that tests of the core need no policy files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from app.core.campaign import Campaign, Trigger, Variant
from app.core.panes import NEVER_MS
from app.core.plan import EventPlan, Feature, Plan, Segment
from app.core.profile import Profile

MINUTE = 60_000
HOUR = 3_600_000
DAY = 86_400_000


def count_feature(event: str, window_ms: int = HOUR, pane_ms: int = MINUTE, **fields: Any) -> Feature:
    """A windowed count."""
    return Feature(f"count({event},{window_ms})", event, "count", window_ms, pane_ms, **fields)


def at_least(feature: Feature, threshold: int, name: str = "") -> Segment:
    """The segment of those whose windowed total is at least `threshold`."""

    def evaluate(profile: Profile, now_ms: int, _user: str) -> bool:
        return profile.features.total(feature.id, now_ms // feature.pane_ms, feature.size) >= threshold

    def next_change(profile: Profile, now_ms: int, _user: str) -> int:
        pane = now_ms // feature.pane_ms
        return profile.features.crossing_ms(feature.id, threshold, pane, feature.size, feature.pane_ms)

    title = name or f"{feature.event} x{threshold}"
    return Segment(title, feature.text, evaluate, next_change, frozenset({feature.event}))


def segment(name: str, condition: Callable[[Profile], bool], *events: str) -> Segment:
    """A segment that the clock cannot change."""
    return Segment(
        name,
        name,
        lambda profile, _now_ms, _user: condition(profile),
        lambda _profile, _now_ms, _user: NEVER_MS,
        frozenset(events),
        reads_clock=False,
    )


def variant(name: str = "a", weight: float = 1.0, title: str = "Hello") -> Variant:
    """A wording without placeholders."""
    return Variant(name, weight, lambda _context: SimpleNamespace(title=title, body="body", deep_link=""))


def campaign(name: str, trigger: Trigger, category: str = "promo", **fields: Any) -> Campaign:
    """A campaign with one variant unless told otherwise."""
    fields.setdefault("variants", (variant(),))
    return Campaign(name, category, trigger, **fields)


def on_event(event: str, **fields: Any) -> Trigger:
    """An event trigger."""
    return Trigger("event", event=event, **fields)


def make_plan(
    segments: Iterable[Segment] = (),
    features: Iterable[Feature] = (),
    campaigns: Iterable[Campaign] = (),
    version: str = "test-1",
    **fields: Any,
) -> Plan:
    """A plan whose mappings are derived from its parts, as the compiler of policies does."""
    segments, features, campaigns = tuple(segments), tuple(features), tuple(campaigns)
    names = {feature.event for feature in features}
    names.update(*(part.events for part in segments), *(part.trigger.cancel for part in campaigns))
    names.update(part.trigger.event for part in campaigns if part.trigger.event)
    on_segment: dict[str, tuple[Campaign, ...]] = {}
    for part in campaigns:
        if part.trigger.segment:
            on_segment[part.trigger.segment] = (*on_segment.get(part.trigger.segment, ()), part)
    return Plan(
        version=version,
        segments=segments,
        features=features,
        campaigns=campaigns,
        events={name: _event_plan(name, segments, features, campaigns) for name in names - {"*", "$traits"}},
        other=_event_plan("", segments, features, campaigns),
        on_traits=_event_plan("$traits", segments, features, campaigns),
        segment_by_id={part.id: part for part in segments},
        campaign_by_id={part.id: part for part in campaigns},
        on_segment=on_segment,
        **fields,
    )


def _event_plan(
    name: str, segments: tuple[Segment, ...], features: tuple[Feature, ...], campaigns: tuple[Campaign, ...]
) -> EventPlan:
    return EventPlan(
        features=tuple(part for part in features if part.event == name),
        segments=tuple(part for part in segments if name in part.events or "*" in part.events),
        triggers=tuple(part for part in campaigns if name and part.trigger.event == name),
        cancels=tuple(part for part in campaigns if name in part.trigger.cancel),
    )


class FixedScorer:
    """A model that gives each campaign the probability it was told, else `default`."""

    def __init__(self, default: float = 0.3, by_campaign: Mapping[str, float] | None = None) -> None:
        self.version = 7
        self.default = default
        self.by_campaign = dict(by_campaign or {})

    def open_probability(self, features: Mapping[str, float]) -> float:
        return next((p for name, p in self.by_campaign.items() if features.get(f"c={name}")), self.default)


def campaign_only(_profile: Profile, part: Campaign, _now_ms: int, _plan: Plan) -> dict[str, float]:
    """Features that only name the campaign."""
    return {f"c={part.name}": 1.0}
