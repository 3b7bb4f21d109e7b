"""What a row is made of besides numbers: its structs, and `Rare`, the fields that few events ask for.

A row is a tree, so its structs are exempt from garbage collection (`gc=False`): a worker holds many thousand of them.
Fields may be added at the end with a default; they may not be removed or re-ordered (old rows are read by position).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.core.activity import Activity

Slim = int | float
"""A number that is nearly always 0 or 1: as an int these take one byte in a row, as a float nine."""


def slim(value: float) -> Slim:
    """The same number, as an int where it is 0 or 1."""
    return int(value) if value in (0.0, 1.0) else value


class Output(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One record to be produced: a topic of the registry, key, value and headers."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class OutboxEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An output that this row owes to a topic.

    `mark` is the source offset of the event that caused it, or the partition's next source offset when a timer did.
    Every output with a mark below the partition's committed offset has been acknowledged.
    """

    mark: int
    output: Output


class Timer(msgspec.Struct, array_like=True, gc=False):
    """Something to look at again at `due_ms`. `kind` is one of `app.core.timers`; `ref` is a campaign's id or 0.

    `origin` is the source offset of the event that set it; `key` the trigger key (a cart id, say); `set_ms` that
    event's time; `data` its properties, bounded, for the template. `propensity` is that of the hour that a candidate
    waits for. Of a label's or a reward's end there is no more than when, which and whose.
    """

    due_ms: int
    kind: int
    ref: int = 0
    key: str = ""
    origin: int = -1
    set_ms: int = 0
    data: dict[str, Any] = {}
    propensity: Slim = 1


IN_TIME: Final = 1
LATE: Final = 2
EMITTED: Final = 3
SILENT: Final = 4


class Pending(msgspec.Struct, array_like=True, gc=False):
    """A decision to send whose label has not matured. Its `id` is short, see `app.core.ids.short_id`.

    `sent_ms` is 0 until the sender's receipt arrives; `answered` is 0, or once it was opened `IN_TIME` or `LATE`, or
    `EMITTED` when its example has gone out, or `SILENT` when that said "not opened" and a late open may correct it.
    `clicked` and `opted_out` are 1 when that followed within the horizon; a click after the example had gone out is 2.
    `features` are packed, see `app.core.logged`; empty once their example has gone out. `variant` is empty when that
    was withheld (`app.core.influence`).
    `events` is how many events the row had then, -1 when that is not known.
    """

    id: str
    campaign: str
    variant: str
    decided_ms: int
    sent_ms: int
    score: float
    model_version: int
    propensity: Slim
    features: bytes
    answered: int = 0
    clicked: int = 0
    opted_out: int = 0
    events: int = -1


class PendingReward(msgspec.Struct, array_like=True, gc=False):
    """A learned choice whose reward has not matured, see `app.core.rewards`.

    `campaign` and `reward` are stable ids (of the reward: what was asked for at the decision); `gain` is what the user
    did so far, in [0, 1]; `features` are packed. The rest is as of `Pending`.
    """

    id: str
    campaign: int
    variant: str
    decided_ms: int
    reward: int
    propensity: Slim
    features: bytes = b""
    events: int = -1
    sent_ms: int = 0
    gain: Slim = 0
    opted_out: int = 0


class SendMemory(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A decision to send, as caps and cool-downs remember it: when, which campaign and category (stable ids)."""

    at_ms: int
    campaign: int
    category: int


class Watch(msgspec.Struct, array_like=True, gc=False):
    """An example of a propensity model whose label has not matured: over (begun_ms, end_ms]. Features are packed."""

    begun_ms: int
    end_ms: int
    score: float
    model_version: int
    features: bytes
    happened: bool = False


class Propensity(msgspec.Struct, array_like=True, gc=False):
    """What propensity models and personas need of a user; only in rows of a policy that has any.

    Watches and scores are by the model's name. `persona` is the number of the user's persona, 0 for none yet.
    """

    activity: Activity
    watches: dict[str, Watch] = {}
    scores: dict[str, float] = {}
    persona: int = 0
    persona_name: str = ""


class OlderTraits(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Times of traits that the newest identify did not say, see `app.core.traits`.

    `runs` are pairs: so many traits, from the oldest on, were said that much (ms) before `traits_ms`. `removed` are
    names of traits that were taken back, and when; bounded.
    """

    runs: list[int] = []
    removed: dict[str, int] = {}


class Rare(msgspec.Struct, array_like=True, gc=False):
    """The fields of a user's row that few events ask for. Times are milliseconds since 1970; 0 means never.

    Parameters
    ----------
    hours
        Hour of week (0 = Monday 00:00 local) to the number of notifications opened in it.
    consent
        -1 never asked, 0 refused, 1 given.
    sends
        Decisions to send that the longest cap still counts, oldest first.
    category_consent
        Category to the time of the newest event that opted out of it or back in, bounded.
    devices
        Push token to the device that has it, see `app.core.devices`, bounded.
    labels
        The newest matured labels as bits behind a sentinel, see `app.core.label_history`.
    shown
        Variant (stable id of campaign and name) to the time of the newest decision to show it, bounded; only of
        campaigns that ask for it. Also when an opt-out last counted (`app.core.influence`).
    hour_sends, hour_opens
        Local hour of week to the matured notifications that were sent in it, and to those of them that were opened.
    weariness, weariness_ms
        How tired of notifications the user seems, 0 or more, and at what time; see `app.core.weariness`.
    examples
        [examples there were of this user, halved every day; their newest time], see `app.core.influence`.
    absorbed
        Stable ids of the users whose rows were merged into this one, bounded.
    rewards
        Learned choices whose reward has not matured; only of campaigns that learn from more than the open.
    open_rates
        Opens and clicks with weights that halve with time, see `app.core.open_rates`; empty before the first label.
    older_traits
        None while all traits were said at `traits_ms` and none was taken back.
    """

    traits: dict[str, Any] = {}
    traits_ms: int = 0
    consent: int = -1
    consent_ms: int = 0
    opted_out: list[str] = []
    aliases: list[str] = []
    hours: dict[int, int] = {}
    sent: int = 0
    opened: int = 0
    clicked: int = 0
    dismissed: int = 0
    ignored_run: int = 0
    sends: list[SendMemory] = []
    pending: list[Pending] = []
    outbox: list[OutboxEntry] = []
    devices: dict[str, Any] = {}
    category_consent: dict[str, int] = {}
    labels: int = 1
    shown: dict[int, int] = {}
    hour_sends: dict[int, int] = {}
    hour_opens: dict[int, int] = {}
    weariness: Slim = 0
    weariness_ms: int = 0
    examples: list[float] = []
    absorbed: list[int] = []
    rewards: list[PendingReward] = []
    open_rates: bytes = b""
    older_traits: OlderTraits | None = None
