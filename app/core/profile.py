"""The row: all that is known of one user, one value in one table.

A row is encoded as a short fixed header, which a restore can read without decoding the row, and a MessagePack body.
Fields may be added at the end with a default; they may not be removed or re-ordered (old rows are read by position).

A row is a tree, so its structs are exempt from garbage collection (`gc=False`): a worker holds many thousand of them.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.core.activity import Activity
from app.core.browsing import Browsing
from app.core.panes import NEVER_MS, Panes
from app.core.row_upgrades import OLDEST_VERSION, upgraded

ROW_VERSION: Final = 3
HOURS_PER_WEEK: Final = 168

_HEAD = struct.Struct(">BBqB")
_HEAD_IDS_MAX: Final = 255
_HEAD_COUNT_AT: Final = _HEAD.size - 1
_PACK_HEAD: Final = tuple(struct.Struct(f">BBqB{count}I").pack for count in range(_HEAD_IDS_MAX + 1))
_FLAG_OUTBOX: Final = 1


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
    headers: list[tuple[str, bytes]] = []


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


class Profile(msgspec.Struct, array_like=True, gc=False):
    """One user. Times are milliseconds since 1970 in event time; 0 means never.

    Parameters
    ----------
    offset
        The last source offset applied to this row: a replayed event at or below it changes nothing.
    recent
        Hashes of the newest message ids, `app.core.ids.WORD_BYTES` bytes each, newest last, bounded: the window of
        de-duplication.
    last
        Event name's stable id to the newest event time (recency), bounded.
    features
        Feature id to pane state.
    segments
        Segment id to the time the user entered it.
    hours
        Hour of week (0 = Monday 00:00 local) to the number of notifications opened in it.
    affinity
        Category to the level of the user's interest (s), see `app.core.interest`, bounded.
    consent
        -1 never asked, 0 refused, 1 given.
    sends
        Decisions to send that the longest cap still counts, oldest first.
    category_consent
        Category to the time of the newest event that opted out of it or back in, bounded.
    policy
        Stable id of the policy version that all segments were last evaluated with.
    devices
        Push token to the device that has it, see `app.core.devices`, bounded.
    labels
        The newest matured labels as bits behind a sentinel, see `app.core.label_history`.
    erased_ms
        Above 0 this is no user but the mark of one that was erased then, see `app.core.erasure`.
    missing
        Ids of windows that the policy asked for when the row existed already: until the backfill has rebuilt them from
        `events`, segments that read them stay as they are.
    shown
        Variant (stable id of campaign and name) to the time of the newest decision to show it, bounded; only of
        campaigns that ask for it. Also when an opt-out last counted (`app.core.influence`).
    hour_sends, hour_opens
        Local hour of week to the matured notifications that were sent in it, and to those of them that were opened.
    weariness, weariness_ms
        How tired of notifications the user seems, 0 or more, and at what time; see `app.core.weariness`.
    propensity
        See `app.core.propensity`; None without such models.
    examples
        [examples there were of this user, halved every day; their newest time], see `app.core.influence`.
    merged_into
        Of a row that was merged into another: that user's id. Then nothing else stands here, see `app.core.merge`.
    absorbed
        Stable ids of the users whose rows were merged into this one, bounded.
    locale
        Language tag of the newest context, as `app.core.locales` writes it; empty when it gave none.
    browsing
        See `app.core.items`; None unless the policy recommends products.
    owed
        Membership changes that this row owes to their topic, packed, see `app.core.owed`; the outbox has the rest.
    rewards
        Learned choices whose reward has not matured; only of campaigns that learn from more than the open.
    open_rates
        Opens and clicks with weights that halve with time, see `app.core.open_rates`; empty before the first label.
    older_traits
        None while all traits were said at `traits_ms` and none was taken back.
    """

    offset: int = -1
    first_ms: int = 0
    seen_ms: int = 0
    events: int = 0
    recent: bytes = b""
    traits: dict[str, Any] = {}
    traits_ms: int = 0
    timezone: str = ""
    device: str = ""
    consent: int = -1
    consent_ms: int = 0
    opted_out: list[str] = []
    aliases: list[str] = []
    last: dict[int, int] = {}
    features: dict[int, Panes] = {}
    segments: dict[int, int] = {}
    orders: int = 0
    revenue_milli: int = 0
    order_ms: int = 0
    hours: dict[int, int] = {}
    affinity: dict[str, int] = {}
    sent: int = 0
    opened: int = 0
    clicked: int = 0
    dismissed: int = 0
    ignored_run: int = 0
    sends: list[SendMemory] = []
    pending: list[Pending] = []
    timers: list[Timer] = []
    outbox: list[OutboxEntry] = []
    devices: dict[str, Any] = {}
    segments_due_ms: int = NEVER_MS
    category_consent: dict[str, int] = {}
    policy: int = 0
    labels: int = 1
    erased_ms: int = 0
    missing: list[int] = []
    shown: dict[int, int] = {}
    hour_sends: dict[int, int] = {}
    hour_opens: dict[int, int] = {}
    weariness: Slim = 0
    weariness_ms: int = 0
    propensity: Propensity | None = None
    examples: list[float] = []
    merged_into: str = ""
    absorbed: list[int] = []
    locale: str = ""
    browsing: Browsing | None = None
    owed: bytes = b""
    rewards: list[PendingReward] = []
    open_rates: bytes = b""
    older_traits: OlderTraits | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Profile).decode


class BadRow(ValueError):
    """The stored bytes are not a row of a version that we read."""


def forget(profile: Profile, keep: tuple[str, ...] = ()) -> None:
    """Make every field but those of `keep` what it is in a new row."""
    fresh = Profile()  # not one for all: its lists and dicts become the row's
    for name in profile.__struct_fields__:
        if name not in keep:
            setattr(profile, name, getattr(fresh, name))


def due_ms(profile: Profile) -> int:
    """The earliest instant at which the clock alone can change this row (`NEVER_MS` when none)."""
    due = profile.segments_due_ms
    for timer in profile.timers:
        if timer.due_ms < due:
            due = timer.due_ms
    return due


def encode_profile(profile: Profile) -> bytes:
    """Header (version, flags, due time, segment ids) and body."""
    ids = profile.segments
    count = len(ids)
    flags = _FLAG_OUTBOX if profile.owed or profile.outbox else 0
    if count > _HEAD_IDS_MAX:
        ids, count = dict.fromkeys(list(ids)[:_HEAD_IDS_MAX], 0), _HEAD_IDS_MAX
    due = due_ms(profile) if profile.timers else profile.segments_due_ms
    return _PACK_HEAD[count](ROW_VERSION, flags, due, count, *ids) + _encode(profile)


def decode_profile(raw: bytes) -> Profile:
    """Raises `BadRow`."""
    try:
        version = raw[0]
        body = memoryview(raw)[_HEAD.size + 4 * raw[_HEAD_COUNT_AT] :]
        if version == ROW_VERSION:
            return _decode(body)
        if OLDEST_VERSION <= version < ROW_VERSION:
            return _decode(upgraded(body, version))
        raise BadRow(f"row version {version}; this build reads {OLDEST_VERSION} to {ROW_VERSION}")
    except (IndexError, msgspec.MsgspecError) as exc:
        raise BadRow(f"not a profile row: {exc}") from exc


class RowHead(msgspec.Struct, frozen=True, gc=False):
    """What a restore needs of a row."""

    due_ms: int
    has_outbox: bool
    segments: tuple[int, ...]


def peek(raw: bytes) -> RowHead:
    """Read a row's header without decoding the row. Raises `BadRow`."""
    heads = read_heads([(b"", raw)])
    due_ms = heads.due[0][0] if heads.due else NEVER_MS
    return RowHead(due_ms, bool(heads.owing), struct.unpack(f">{len(heads.packed) // 4}I", heads.packed))


class RowHeads(msgspec.Struct, frozen=True, gc=False):
    """What a restore needs of very many rows.

    `due` are the rows that the clock can change, with their keys; `owing` the keys of those with an outbox.
    """

    due: list[tuple[int, bytes]]
    owing: list[bytes]
    packed: bytes
    """The segments of all of them, one after the other: four bytes each."""

    def members(self) -> Counter[int]:
        """Rows by segment."""
        return Counter(struct.unpack(f">{len(self.packed) // 4}I", self.packed))


def read_heads(rows: Sequence[tuple[bytes, bytes]]) -> RowHeads:
    """The headers of rows with their keys. Raises `BadRow`."""
    due: list[tuple[int, bytes]] = []
    owing: list[bytes] = []
    packed: list[bytes] = []
    head, begin = _HEAD.unpack_from, _HEAD.size
    try:
        for key, raw in rows:
            _version, flags, due_ms, count = head(raw)
            if due_ms < NEVER_MS:
                due.append((due_ms, key))
            if flags & _FLAG_OUTBOX:
                owing.append(key)
            if count:
                segments = raw[begin : begin + 4 * count]
                if len(segments) < 4 * count:
                    raise BadRow(f"not a profile row: it ends within its {count} segments")
                packed.append(segments)
    except struct.error as exc:
        raise BadRow(f"not a profile row: {exc}") from exc
    return RowHeads(due, owing, b"".join(packed))
