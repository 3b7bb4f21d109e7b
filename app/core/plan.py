"""The plan: a policy after validation and compilation, as the core reads it.

`app.policy` builds it from YAML; tests may build it by hand. Everything here is immutable and does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from app.core.campaign import Campaign, Where
from app.core.expression_ir import Condition
from app.core.ids import set_default_id, stable_id
from app.core.percentiles import Measured
from app.core.profile import Profile

if TYPE_CHECKING:
    from app.core.expression_context import ExpressionContext


@dataclass(frozen=True, slots=True)
class Feature:
    """Windowed state that some expression reads.

    A count of events or a sum of a property in thousandths (`app.core.panes`), or one of the states of
    `app.core.marks`. `named` is the event that a session counts, empty for any.
    """

    text: str
    event: str
    kind: Literal["count", "sum", "distinct", "times", "session", "sessions"]
    window_ms: int
    pane_ms: int
    property_path: str = ""
    where: Where | None = None
    id: int = 0
    named: str = ""

    def __post_init__(self) -> None:
        set_default_id(self, "id", self.text)

    @property
    def size(self) -> int:
        """Panes in the window."""
        return self.window_ms // self.pane_ms


@dataclass(frozen=True, slots=True)
class Segment:
    """A named condition over a profile.

    `evaluate(profile, now_ms, user)` says whether the user belongs. `next_change(profile, now_ms, user)` is the
    earliest instant after `now_ms` at which the clock alone may change the answer (`NEVER_MS` when it cannot);
    it may be early, never late.
    """

    name: str
    expression: str
    evaluate: Callable[[Profile, int, str], bool]
    next_change: Callable[[Profile, int, str], int]
    events: frozenset[str]
    """Names of the events that can change it; ``*`` stands for any event, ``$traits`` for identify."""
    description: str = ""
    id: int = 0
    reads_clock: bool = True
    """False when `next_change` is always `NEVER_MS`: it need not be asked then."""
    postponed_by: frozenset[str] = frozenset()
    """Events that, as long as they do not change the answer, can only postpone `next_change`: it need not be asked
    after them. So an event that touches one windowed total or recency, compared by an inequality, and nothing else of
    the condition, if nothing else of it reads the clock. Of a compiled `condition` the core finds that out itself."""
    features: frozenset[int] = frozenset()
    """Ids of the windowed totals that it reads, with those of the segments it names."""
    cuts: frozenset[int] = frozenset()
    """Ids of the percentiles that it asks for, with those of the segments it names."""
    condition: Condition | None = None
    """What `evaluate` and `next_change` were compiled from, if they were: then an event's segments are judged in one
    function, which reads each total once."""

    until: str = ""
    stay_ms: int = 0
    """Of a segment with hysteresis (`app.core.hysteresis`): the condition that lets users out, and the least stay."""

    users_min: int = 0
    """With fewer users it is worth a warning: too little to learn from, or to measure an effect on."""

    def __post_init__(self) -> None:
        set_default_id(self, "id", self.name)


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit` decisions to send in any `window_ms`, of one category or (empty) of all."""

    limit: int
    window_ms: int
    category: str = ""


@dataclass(frozen=True, slots=True)
class AdaptiveCaps:
    """How caps tighten for users who seem tired (`app.core.weariness`): to no less than the share `floor`."""

    floor: float
    half_life_ms: int


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local minutes of the day; `start` may be later than `end` (over midnight)."""

    start_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True)
class RfmGrid:
    """Cut points of the RFM scores 1..5, ascending: days since the last order, orders, lifetime revenue."""

    recency_days: tuple[float, float, float, float] = (7, 30, 90, 180)
    frequency: tuple[float, float, float, float] = (2, 4, 8, 16)
    monetary: tuple[float, float, float, float] = (50, 150, 500, 1500)


@dataclass(frozen=True, slots=True)
class EventPlan:
    """What one event name touches."""

    features: tuple[Feature, ...] = ()
    segments: tuple[Segment, ...] = ()
    triggers: tuple[Campaign, ...] = ()
    """Campaigns with an `event`, `absence` or `dormancy` trigger on this event."""
    cancels: tuple[Campaign, ...] = ()
    """Campaigns whose pending absence this event cancels."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What the policy says of a model.

    Parameters
    ----------
    kind
        Which model a learner without a snapshot begins with.
    challenger
        The kind that learns beside it and is promoted when it is surely better; empty for none.
    on_drift
        What an alarm does besides being counted: nothing, larger steps, or serving an older version until the newest
        does better again.
    event, horizon_ms
        Of a propensity model: within `horizon_ms` the label is whether the user does `event`, or (empty) whether they
        do nothing at all. A model without a horizon learns the answers to notifications.
    """

    kind: str = "open-mix"
    challenger: str = ""
    on_drift: Literal["alarm", "learn_faster", "fall_back"] = "alarm"
    event: str = ""
    horizon_ms: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that it names."""
        return (self.kind, self.challenger) if self.challenger else (self.kind,)


@dataclass(frozen=True, slots=True)
class PersonaPlan:
    """How many personas there may be, how small one, and names in place of learned ones (by ``p`` and number)."""

    count_max: int = 8
    share_min: float = 0.03
    names: Mapping[str, str] = field(default_factory=dict)
    count_min: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled policy version."""

    version: str
    segments: tuple[Segment, ...] = ()
    features: tuple[Feature, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    caps: tuple[Cap, ...] = ()
    quiet_hours: QuietHours | None = None
    default_timezone: str = "UTC"
    consent_required: bool = False
    holdout_share: float = 0.0
    holdout_salt: str = "holdout"
    rfm: RfmGrid = field(default_factory=RfmGrid)
    model: str = "open"
    label_horizon_ms: int = 86_400_000
    suppressed_share: float = 1.0
    """Share of suppressed candidates that are emitted (by stable hash of the decision id)."""
    grace_ms: int = 86_400_000
    future_skew_ms: int = 300_000
    age_max_ms: int = 400 * 86_400_000
    events: Mapping[str, EventPlan] = field(default_factory=dict)
    """By event name, for every name that the policy mentions; other names use `other`."""
    other: EventPlan = field(default_factory=EventPlan)
    on_traits: EventPlan = field(default_factory=EventPlan)
    """What an identify touches."""
    segment_by_id: Mapping[int, Segment] = field(default_factory=dict)
    campaign_by_id: Mapping[int, Campaign] = field(default_factory=dict)
    on_segment: Mapping[str, tuple[Campaign, ...]] = field(default_factory=dict)
    """Campaigns with an enter or leave trigger, by segment name."""
    name: str = ""
    """The policy's, whatever its version."""
    segment_users_min: int = 0
    """A segment with fewer users is worth a warning: too little to learn from, or to measure an effect on."""
    opens_wait: bool = False
    """Whether the example of an open waits for the label horizon, as that of silence does."""
    traits: tuple[str, ...] = ()
    """Traits of the user that the open model is told."""
    late_opens_ms: int = 0
    """How long after the label horizon an open still corrects its example; 0 for never."""
    adaptive: AdaptiveCaps | None = None
    """Whether, and how, caps are tightened by user."""
    context: ExpressionContext | None = None
    """What its conditions were compiled against: an explanation compiles their clauses one by one."""
    models: Mapping[str, ModelPlan] = field(default_factory=dict)
    """By the model's name; one that is not named has the defaults."""
    measured: tuple[Measured, ...] = ()
    """Numbers whose percentiles conditions ask for."""
    open_scores: Mapping[str, tuple[Campaign, ...]] = field(default_factory=dict)
    """Which campaigns conditions ask the open model about, by the name of the score (`app.core.scores`)."""
    personas: PersonaPlan | None = None
    """Whether, and how, users are told apart by what they are like."""
    warnings: tuple[str, ...] = ()
    """What is no mistake and perhaps not meant, one text each with file, line and field."""
    event_places: Mapping[str, str] = field(default_factory=dict)
    """Event names that the policy's author wrote, and where each stands first: file, line, column and field."""


class Scorer(Protocol):
    """The serving side of a model: a snapshot that the learner published."""

    version: int

    def open_probability(self, features: Mapping[str, float]) -> float:
        """P(open) in (0, 1)."""
        ...


def event_id(name: str) -> int:
    """The id under which `Profile.last` keeps an event name."""
    return stable_id(name)
