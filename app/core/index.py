"""A plan arranged for the hot path: one look-up by event name gives everything that the event touches.

Built once a policy version. Attribute reads of the plan's objects and the questions "is it a receipt?", "does the
policy know it?" are answered here and not once an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from mypy_extensions import i64

from app.core import weariness
from app.core.campaign import Campaign, Where
from app.core.earlier import NOTHING, Earlier
from app.core.expression_ir import Suspect
from app.core.expression_judge import Judge, Moves, known_condition, make_judge, suspects, when_new
from app.core.expression_known import Known, PropertyIs
from app.core.ids import stable_id
from app.core.marks import MarkOp
from app.core.owed import Cause, Wording
from app.core.plan import EventPlan, Feature, Plan, Segment, event_id
from app.core.profile import Profile
from schemas.events import (
    DEVICE_TOKEN_REMOVED,
    NOTIFICATION_CLICKED,
    NOTIFICATION_DISMISSED,
    NOTIFICATION_FAILED,
    NOTIFICATION_OPENED,
    NOTIFICATION_SENT,
    NOTIFICATIONS_DISABLED,
    NOTIFICATIONS_ENABLED,
)

NAMES_MAX: Final = 2048
WORDINGS_MAX: Final = 8192
LEVELS_LISTED: Final = 256
WEEK_MS: Final = 7 * 86_400_000
CLOCK_BACK_MS: Final = 86_400_000
"""How far a clock may step back, or a worker's be behind another's, with every cap and cool-down kept by it."""

RECEIPTS: Final = frozenset({NOTIFICATION_SENT, NOTIFICATION_FAILED, DEVICE_TOKEN_REMOVED})
"""Not the user's own activity: the sender writes them."""
_NOT_INTEREST = RECEIPTS | {
    NOTIFICATION_OPENED,
    NOTIFICATION_CLICKED,
    NOTIFICATION_DISMISSED,
    NOTIFICATIONS_ENABLED,
    NOTIFICATIONS_DISABLED,
}
"""Their `category` is a notification's, not a product's."""


_TOTALS: Final = frozenset({"count", "sum"})
_SESSIONS: Final = frozenset({"session", "sessions"})


Shown = list[tuple[Suspect, int]]
"""What shows that a segment may have changed, with the segment's bit."""


class FeatureOp:
    """A feature to fold. `path` is None for a count; `known` is a `where` that the core knows, which is None then.

    A `plain` one counts each event. `levels` are the totals at which segments may change, with those segments (bits, as
    in `Batch.suspects`); `shows` says that there are any. Those below `LEVELS_LISTED` stand in the list `low`, too, by
    total; `high` says that there are others.
    """

    __slots__ = ("high", "id", "known", "levels", "low", "path", "plain", "shows", "size", "where")

    def __init__(
        self, feature_id: int, size: int, path: tuple[str, ...] | None, where: Where | None, levels: dict[int, int]
    ) -> None:
        self.id: i64 = feature_id
        self.size: i64 = size
        self.path = path
        self.known = where if isinstance(where, PropertyIs) else None
        self.where = None if self.known is not None else where
        self.plain = path is None and where is None
        self.shows = bool(levels)
        self.levels = levels
        highest = max(levels, default=-1)
        self.low = [levels.get(total, 0) for total in range(min(highest + 1, LEVELS_LISTED))]
        self.high = highest >= LEVELS_LISTED


class SegmentOp(NamedTuple):
    """A segment to evaluate. `next_change` is None when the clock cannot change it."""

    id: int
    evaluate: Callable[[Profile, int, str], bool]
    next_change: Callable[[Profile, int, str], int] | None
    segment: Segment


class KnownSegment:
    """A segment whose condition the core knows."""

    __slots__ = ("id", "known", "segment")

    def __init__(self, segment: Segment, known: Known) -> None:
        self.segment = segment
        self.id: i64 = segment.id
        self.known = known


class EventOps:
    """What one event name touches."""

    __slots__ = (
        "absences",
        "always",
        "asked",
        "bits",
        "cancels",
        "dormancies",
        "entered",
        "entering",
        "event_id",
        "features",
        "handler",
        "interest",
        "judge",
        "judge_new",
        "known",
        "leaving",
        "marks",
        "name",
        "on_event",
        "open",
        "own",
        "pauses",
        "schedules",
        "segments",
        "settled",
        "singles",
        "starts",
        "triggers",
        "welcome",
    )

    def __init__(
        self,
        name: str,
        plan: EventPlan,
        every_dormancy: tuple[Campaign, ...],
        schedules: tuple[Campaign, ...],
        judge: Judge | None,
        always: Judge | None,
    ) -> None:
        self.name = name
        self.event_id = event_id(name) if name else 0
        totals = tuple(feature for feature in plan.features if feature.kind in _TOTALS)
        self.segments = plan.segments
        self.singles: list[Judge | None] = [None] * len(plan.segments)
        seen = _shown(plan, name)
        self.known = [
            None if (known := known_condition(segment)) is None else KnownSegment(segment, known)
            for segment in plan.segments
        ]
        self.bits = tuple(
            0 if found is None and known is None else 1 << at
            for at, (found, known) in enumerate(zip(seen, self.known, strict=True))
        )
        """Of each segment its bit in `Batch.suspects`; 0 where `always` asks, whatever the event has changed."""
        self.asked = sum(bit for found, bit in zip(seen, self.bits, strict=True) if found is None)
        """Those of which nothing shows whether the event has changed them: always suspect (bits)."""
        self.welcome = False
        """Whether it is known what to ask of a row that such an event has made, see `PlanIndex.meet`:"""
        self.judge_new: Judge | None = None
        """this, if anything,"""
        self.settled = 0
        """suspects to which nobody belongs before an event that they read (bits),"""
        self.open = 0
        """others that are asked like suspects, but always (bits);"""
        self.entered: Moves = []
        """and what need not be asked: everybody belongs to these before an event that they read."""
        self.entering: dict[int, Wording] | None = None
        """How changes that such an event makes are put, by segment, if that was asked; None for names of no policy."""
        self.leaving: dict[int, Wording] | None = None
        shown = [(one, bit) for found, bit in zip(seen, self.bits, strict=True) for one in found or ()]
        self.features = _by_pane(totals, shown)
        self.pauses = tuple((one.pause_ms, bit) for one, bit in shown if not one.feature)
        """Segments that an event may change which comes so long (ms) after the last of its name."""
        self.marks = tuple(mark_op(feature) for feature in plan.features if _leaves_mark(feature, name))
        self.judge = judge
        """Asks all segments that the event can change."""
        self.always = always
        """Asks those of which nothing shows whether it has, and that the core does not know; of the others, `judge_one`
        asks those that are suspect.
        """
        self.on_event = _of_kind(plan, "event")
        self.absences = _of_kind(plan, "absence")
        self.cancels = plan.cancels
        self.own = name not in RECEIPTS
        self.dormancies = self._dormancies(plan, every_dormancy)
        self.schedules = schedules if self.own else ()
        self.interest = bool(name) and name not in _NOT_INTEREST
        self.handler: Callable[..., None] | None = None
        self.starts = bool(self.on_event or self.absences)
        self.triggers = bool(self.starts or self.cancels or self.dormancies or self.schedules)

    def judge_one(self, at: int) -> Judge:
        """Asks one of the segments."""
        judge = self.singles[at]
        if judge is None:
            judge = self.singles[at] = make_judge(self.segments[at : at + 1], self.name)
        return judge

    def _dormancies(self, plan: EventPlan, every: tuple[Campaign, ...]) -> tuple[Campaign, ...]:
        if not self.own:
            return ()
        named = tuple(campaign for campaign in _of_kind(plan, "dormancy") if campaign.trigger.event)
        return named + every


def _of_kind(plan: EventPlan, kind: str) -> tuple[Campaign, ...]:
    return tuple(campaign for campaign in plan.triggers if campaign.trigger.kind == kind)


def _shown(plan: EventPlan, event: str) -> list[list[Suspect] | None]:
    """Of each segment what shows that the event may have changed it, if all of that is seen when it is folded."""
    counts = {feature.id for feature in plan.features if feature.kind == "count"}

    def of(segment: Segment) -> list[Suspect] | None:
        found = suspects(segment, event)
        return found if found and all(one.feature in counts for one in found if one.feature) else None

    return [of(segment) for segment in plan.segments]


def _feature_op(feature: Feature, shown: Shown) -> FeatureOp:
    path = tuple(feature.property_path.split(".")) if feature.kind == "sum" else None
    levels: dict[int, int] = {}
    for one, bit in shown:
        if one.feature == feature.id:
            levels[one.level] = levels.get(one.level, 0) | bit
    return FeatureOp(feature.id, feature.size, path, feature.where, levels)


def _leaves_mark(feature: Feature, event: str) -> bool:
    """Whether the event leaves a mark other than a total. What the sender writes is no part of a session."""
    return feature.kind not in _TOTALS and not (feature.kind in _SESSIONS and event in RECEIPTS)


def mark_op(feature: Feature) -> MarkOp:
    """A feature that is not a total, as an event folds it."""
    path = tuple(feature.property_path.split(".")) if feature.property_path else ()
    return MarkOp(feature.id, feature.kind, feature.pane_ms, feature.size, path, feature.where, feature.named)


def _by_pane(features: tuple[Feature, ...], shown: Shown) -> tuple[tuple[int, tuple[FeatureOp, ...]], ...]:
    """The features by the width of their panes (ms): an event's pane is reckoned once for all of a width."""
    widths = dict.fromkeys(feature.pane_ms for feature in features)
    return tuple(
        (width, tuple(_feature_op(feature, shown) for feature in features if feature.pane_ms == width))
        for width in widths
    )


def segment_op(segment: Segment) -> SegmentOp:
    """The segment as it is evaluated by itself."""
    next_change = segment.next_change if segment.reads_clock else None
    return SegmentOp(segment.id, segment.evaluate, next_change, segment)


def _judges(plan: EventPlan, event: str) -> tuple[Judge | None, Judge | None]:
    """Of all segments that the event touches, and of those that are asked after every such event."""
    always = tuple(
        one
        for one, shown in zip(plan.segments, _shown(plan, event), strict=True)
        if shown is None and known_condition(one) is None
    )
    whole = make_judge(plan.segments, event) if plan.segments else None
    if len(always) == len(plan.segments):
        return whole, whole
    return whole, make_judge(always, event) if always else None


class PlanIndex:
    """A plan and what is derived from it.

    Parameters
    ----------
    handlers
        What the engine itself does with an event, by name: answers, consent, orders.
    earlier
        What earlier versions asked for, as far as it is known.
    """

    def __init__(self, plan: Plan, handlers: dict[str, Callable[..., None]], earlier: Earlier = NOTHING) -> None:
        self.plan = plan
        self.earlier = earlier
        self.policy_id = stable_id(plan.version)
        self.propensities = {name: model for name, model in plan.models.items() if model.horizon_ms}
        self.looks = bool(self.propensities or plan.open_scores or plan.personas is not None)
        self.propensity_by_id = {stable_id(name): (name, model) for name, model in self.propensities.items()}
        self._handlers = handlers
        self._every_dormancy = tuple(
            campaign
            for campaign in plan.campaigns
            if campaign.trigger.kind == "dormancy" and not campaign.trigger.event
        )
        self.schedules = tuple(campaign for campaign in plan.campaigns if campaign.trigger.kind == "schedule")
        self.item_campaigns = tuple(campaign for campaign in plan.campaigns if campaign.trigger.item is not None)
        self.campaigns = {campaign.id: campaign for campaign in plan.campaigns}
        self._when_new = {segment.id: when_new(segment) for segment in plan.segments}
        self._judges_new: dict[tuple[int, ...], Judge] = {}
        self._wordings: dict[tuple[int, bool, str, str], Wording] = {}
        self.segments = tuple(segment_op(segment) for segment in plan.segments)
        self.measured_segments = tuple(op for op in self.segments if op.segment.cuts)
        self.unready: frozenset[int] = frozenset(op.id for op in self.measured_segments)
        """Segments that ask for a percentile whose threshold is not known: whoever is in stays, and nobody enters."""
        self.clock_segments = tuple(op for op in self.segments if op.next_change is not None)
        self._places = {segment.id: at for at, segment in enumerate(plan.segments)}
        self.segment_id = {segment.name: segment.id for segment in plan.segments}
        self.segment_ids = frozenset(op.id for op in self.segments)
        self.known_ids = frozenset(event_id(name) for name in (*plan.events, *handlers))
        self.starts = {
            (name, kind): campaigns
            for name, all_of_it in plan.on_segment.items()
            for kind in ("enter", "leave")
            if (campaigns := tuple(campaign for campaign in all_of_it if campaign.trigger.kind == kind))
        }
        self.features = {feature.id: feature for feature in plan.features}
        self.feature_ids = frozenset(feature.id for feature in plan.features)
        self.cancel_ids = {
            campaign.id: tuple(event_id(name) for name in sorted(campaign.trigger.cancel))
            for campaign in plan.campaigns
        }
        longest_ms = max(
            (*(cap.window_ms for cap in plan.caps), *(one.cool_down_ms for one in plan.campaigns)), default=0
        )
        if plan.adaptive is not None:
            adaptive_ms = weariness.memory_ms(((cap.limit, cap.window_ms) for cap in plan.caps), plan.adaptive)
            longest_ms = max(longest_ms, adaptive_ms)
        self.memory_ms = max(WEEK_MS, longest_ms + CLOCK_BACK_MS)
        """For how long a row remembers what was sent: as long as a cap or a cool-down asks, whatever the clock does."""
        self.caps = tuple(
            (cap.limit, cap.window_ms, stable_id(cap.category) if cap.category else 0) for cap in plan.caps
        )
        on_traits = _judges(plan.on_traits, "$traits")
        self.on_traits = EventOps("", plan.on_traits, self._every_dormancy, self.schedules, *on_traits)
        self._other_judges = _judges(plan.other, "")
        self.grace_ms = plan.grace_ms
        self.age_max_ms = plan.age_max_ms
        self.by_name: dict[str, EventOps] = {name: self._make(name) for name in plan.events}
        """What an event touches; `learn` knows the names that are missing."""

    def wording(self, segment: Segment, inside: bool, cause: Cause, reason: str) -> Wording:
        """How a change of membership is put, for everyone."""
        key = (segment.id, inside, cause, reason)
        wording = self._wordings.get(key)
        if wording is None:
            wording = Wording(segment.name, "enter" if inside else "leave", cause, reason, self.plan.version)
            if len(self._wordings) < WORDINGS_MAX:  # reasons are event names: the producers' choice
                self._wordings[key] = wording
        return wording

    def learn(self, name: str) -> EventOps:
        """What an event touches whose name the policy does not mention."""
        ops = self._make(name)
        if len(self.by_name) < NAMES_MAX:  # names are the producers' choice: the cache must not grow with them
            self.by_name[name] = ops
        return ops

    def meet(self, ops: EventOps) -> None:
        """Find out what to ask of a row that such an event has made; once an event name."""
        asked: list[Segment] = []
        touched = {segment.id: at for at, segment in enumerate(ops.segments)}
        for segment in self.plan.segments:
            answer, at = self._when_new[segment.id], touched.get(segment.id)
            if at is None and answer is None:
                asked.append(segment)
            elif at is None:
                ops.entered += [(segment, True)] if answer else []
            elif ops.bits[at] & ~ops.asked and answer is False:
                ops.settled |= ops.bits[at]
            elif ops.known[at] is not None:
                ops.open |= ops.bits[at]
            else:
                asked.append(segment)
        ids = tuple(segment.id for segment in asked)
        if ids and ids not in self._judges_new:
            self._judges_new[ids] = make_judge(asked, None)
        ops.judge_new = self._judges_new.get(ids)
        ops.welcome = True

    def place(self, move: tuple[Segment, bool]) -> int:
        """Where the segment stands in the policy."""
        return self._places[move[0].id]

    def _make(self, name: str) -> EventOps:
        plan = self.plan.events.get(name)
        judges = self._other_judges if plan is None else _judges(plan, name)
        ops = EventOps(name, plan or self.plan.other, self._every_dormancy, self.schedules, *judges)
        ops.handler = self._handlers.get(name)
        if plan is not None:
            ops.entering, ops.leaving = {}, {}
        return ops

    def unasked(self, profile: Profile) -> list[int]:
        """The windows that the row has no state of, because no version that it has seen asked for them.

        A row of a version that nobody remembers is taken to have everything.
        """
        missing = [known for known in profile.missing if known in self.feature_ids]
        asked = self.earlier.features.get(profile.policy)
        if asked is None or profile.policy == self.policy_id:
            return missing
        return sorted({*missing, *(self.feature_ids - asked)})

    def serve(self, buckets: Mapping[int, int]) -> None:
        """Go over to other thresholds, between batches."""
        if self.plan.context is not None:
            thresholds = self.plan.context.thresholds
            thresholds.serve(buckets)
            self.unready = frozenset(op.id for op in self.measured_segments if thresholds.unknown(op.segment.cuts))

    def started(self, segment: Segment, inside: bool) -> tuple[Campaign, ...]:
        """The campaigns that start when a user enters the segment (`inside`), or leaves it."""
        return self.starts.get((segment.name, "enter" if inside else "leave"), ())
