"""The row: all that is known of one user, one value in one table.

A row is encoded as a short fixed header, which a restore can read without decoding the row (`app.core.row_heads`), and
a MessagePack array: the fields that an ordinary event asks for, and then one more, which is all the others encoded
(`app.core.row_parts.Rare`). To those others more may be added, at the end; what stands before them changes only with
the version.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.core.browsing import Browsing
from app.core.panes import NEVER_MS, Panes
from app.core.rare_fields import RareFields
from app.core.row_heads import COUNT_AT, FLAG_OUTBOX, HEAD, HEAD_IDS_MAX, PACK_HEAD, BadRow
from app.core.row_parts import Propensity, Rare
from app.core.row_upgrades import OLDEST_VERSION, upgraded

ROW_VERSION: Final = 4
HOURS_PER_WEEK: Final = 168

Body = tuple[
    int, int, int, int, bytes, str, str, str, int, int, int, int, int, int, str, bytes,
    dict[int, int], dict[int, msgspec.Raw], dict[int, int], dict[str, int], list[int],
    Propensity | None, Browsing | None, int, bool, bytes,
]  # fmt: skip
"""`COMMON_FIELDS` of a row, when the next of its timers is due, whether its outbox holds anything, and the rare fields.

A time that never comes is 0.
"""

COMMON_FIELDS: Final = (
    "offset",
    "first_ms",
    "seen_ms",
    "events",
    "recent",
    "timezone",
    "device",
    "locale",
    "orders",
    "revenue_milli",
    "order_ms",
    "segments_due_ms",
    "policy",
    "erased_ms",
    "merged_into",
    "owed",
    "last",
    "features",
    "segments",
    "affinity",
    "missing",
    "propensity",
    "browsing",
)
"""What an ordinary event asks for."""
FIELDS: Final = (*COMMON_FIELDS, *Rare.__struct_fields__)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode
_decode_panes = msgspec.msgpack.Decoder(Panes).decode


class Profile(RareFields):
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
        Feature id to the state of its window. In a stored row they are encoded one by one: `window` decodes the one
        that is asked for, `features` all of them.
    segments
        Segment id to the time the user entered it.
    affinity
        Category to the level of the user's interest (s), see `app.core.interest`, bounded.
    policy
        Stable id of the policy version that all segments were last evaluated with.
    erased_ms
        Above 0 this is no user but the mark of one that was erased then, see `app.core.erasure`.
    missing
        Ids of windows that the policy asked for when the row existed already: until the backfill has rebuilt them from
        `events`, segments that read them stay as they are.
    propensity
        See `app.core.propensity`; None without such models.
    merged_into
        Of a row that was merged into another: that user's id. Then nothing else stands here, see `app.core.merge`.
    locale
        Language tag of the newest context, as `app.core.locales` writes it; empty when it gave none.
    browsing
        See `app.core.items`; None unless the policy recommends products.
    owed
        Membership changes that this row owes to their topic, packed, see `app.core.owed`; the outbox has the rest.
    next_timer_ms, owes_records
        Of rare fields that are given encoded: when the next of the timers is due, and whether the outbox holds
        anything.
    encoded
        The rare fields; see `RareFields`.
    encoded_windows
        Whether the states of `features` are encoded.
    rare
        Rare fields by name, for those who make a row by hand.
    """

    __slots__ = (
        "_is_open",
        "_next_timer_ms",
        "_owes_records",
        "affinity",
        "browsing",
        "device",
        "erased_ms",
        "events",
        "first_ms",
        "last",
        "locale",
        "merged_into",
        "missing",
        "offset",
        "order_ms",
        "orders",
        "owed",
        "policy",
        "propensity",
        "recent",
        "revenue_milli",
        "seen_ms",
        "segments",
        "segments_due_ms",
        "states",
        "timezone",
    )

    def __init__(
        self,
        offset: int = -1,
        first_ms: int = 0,
        seen_ms: int = 0,
        events: int = 0,
        recent: bytes = b"",
        timezone: str = "",
        device: str = "",
        locale: str = "",
        orders: int = 0,
        revenue_milli: int = 0,
        order_ms: int = 0,
        segments_due_ms: int = NEVER_MS,
        policy: int = 0,
        erased_ms: int = 0,
        merged_into: str = "",
        owed: bytes = b"",
        last: dict[int, int] | None = None,
        features: dict[int, Panes] | dict[int, msgspec.Raw] | None = None,
        segments: dict[int, int] | None = None,
        affinity: dict[str, int] | None = None,
        missing: list[int] | None = None,
        propensity: Propensity | None = None,
        browsing: Browsing | None = None,
        next_timer_ms: int = 0,
        owes_records: bool = False,
        encoded: bytes = b"",
        encoded_windows: bool = False,
        **rare: Any,
    ) -> None:
        super().__init__(encoded)
        self.offset = offset
        self.first_ms = first_ms
        self.seen_ms = seen_ms
        self.events = events
        self.recent = recent
        self.timezone = timezone
        self.device = device
        self.locale = locale
        self.orders = orders
        self.revenue_milli = revenue_milli
        self.order_ms = order_ms
        self.segments_due_ms = segments_due_ms
        self.policy = policy
        self.erased_ms = erased_ms
        self.merged_into = merged_into
        self.owed = owed
        self.last: dict[int, int] = {} if last is None else last
        self.states: dict[int, Any] = {} if features is None else features
        """As `features`, but for those that are still encoded."""
        self._is_open = not encoded_windows
        self.segments: dict[int, int] = {} if segments is None else segments
        self.affinity: dict[str, int] = {} if affinity is None else affinity
        self.missing: list[int] = [] if missing is None else missing
        self.propensity = propensity
        self.browsing = browsing
        self._next_timer_ms = next_timer_ms or NEVER_MS
        self._owes_records = owes_records
        if rare:
            self.set_rare(Rare(**rare))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Profile):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Profile({', '.join(f'{name}={getattr(self, name)!r}' for name in FIELDS)})"

    @property
    def features(self) -> dict[int, Panes]:
        if not self._is_open:
            for feature_id in self.states:
                self.window(feature_id)
            self._is_open = True
        return self.states

    @features.setter
    def features(self, states: dict[int, Panes]) -> None:
        self.states, self._is_open = states, True

    def window(self, feature_id: int) -> Panes | None:
        """The state of one window, None if there is none. Raises `BadRow` if the stored bytes are no such state."""
        state = self.states.get(feature_id)
        if state is None:
            return None
        if type(state) is list:
            return state
        try:
            opened: Panes = _decode_panes(state)
        except msgspec.MsgspecError as exc:
            raise BadRow(f"not a profile row: {exc}") from exc
        self.states[feature_id] = opened
        return opened

    def next_timer_ms(self) -> int:
        """When the next of the timers is due, `NEVER_MS` without any."""
        rare = self.decoded()
        if rare is None:
            return self._next_timer_ms
        due = NEVER_MS
        for timer in rare.timers:
            if timer.due_ms < due:
                due = timer.due_ms
        return due

    def owes_records(self) -> bool:
        """Whether the outbox holds anything."""
        rare = self.decoded()
        return self._owes_records if rare is None else bool(rare.outbox)


def forget(profile: Profile, keep: tuple[str, ...] = ()) -> None:
    """Make every field but those of `keep` what it is in a new row."""
    fresh = Profile()  # not one for all: its lists and dicts become the row's
    for name in FIELDS:
        if name not in keep:
            setattr(profile, name, getattr(fresh, name))


def due_ms(profile: Profile) -> int:
    """The earliest instant at which the clock alone can change this row (`NEVER_MS` when none)."""
    timer_ms, segments_ms = profile.next_timer_ms(), profile.segments_due_ms
    return timer_ms if timer_ms < segments_ms else segments_ms


def encode_profile(profile: Profile) -> bytes:
    """Header (version, flags, due time, segment ids) and body."""
    ids = profile.segments
    count = len(ids)
    owes_records = profile.owes_records()
    flags = FLAG_OUTBOX if owes_records or profile.owed else 0
    if count > HEAD_IDS_MAX:
        ids, count = dict.fromkeys(list(ids)[:HEAD_IDS_MAX], 0), HEAD_IDS_MAX
    timer_ms, segments_ms = profile.next_timer_ms(), profile.segments_due_ms
    due = timer_ms if timer_ms < segments_ms else segments_ms
    head: bytes = PACK_HEAD[count](ROW_VERSION, flags, due, count, *ids)
    body = (
        profile.offset,
        profile.first_ms,
        profile.seen_ms,
        profile.events,
        profile.recent,
        profile.timezone,
        profile.device,
        profile.locale,
        profile.orders,
        profile.revenue_milli,
        profile.order_ms,
        0 if segments_ms >= NEVER_MS else segments_ms,
        profile.policy,
        profile.erased_ms,
        profile.merged_into,
        profile.owed,
        profile.last,
        profile.states,
        profile.segments,
        profile.affinity,
        profile.missing,
        profile.propensity,
        profile.browsing,
        0 if timer_ms >= NEVER_MS else timer_ms,
        owes_records,
        profile.rare_bytes(),
    )
    return head + _encode(body)


def decode_profile(raw: bytes) -> Profile:
    """Raises `BadRow`; of what only the rare fields have wrong, when one of them is asked for."""
    try:
        version = raw[0]
        body: Any = memoryview(raw)[HEAD.size + 4 * raw[COUNT_AT] :]
        if version != ROW_VERSION:
            if not OLDEST_VERSION <= version < ROW_VERSION:
                raise BadRow(f"row version {version}; this build reads {OLDEST_VERSION} to {ROW_VERSION}")
            body = upgraded(body, version)
        fields: Body = _decode(body)
    except (IndexError, msgspec.MsgspecError) as exc:
        raise BadRow(f"not a profile row: {exc}") from exc
    profile = Profile(
        fields[0],
        fields[1],
        fields[2],
        fields[3],
        fields[4],
        fields[5],
        fields[6],
        fields[7],
        fields[8],
        fields[9],
        fields[10],
        fields[11],
        fields[12],
        fields[13],
        fields[14],
        fields[15],
        fields[16],
        fields[17],
        fields[18],
        fields[19],
        fields[20],
        fields[21],
        fields[22],
        fields[23],
        fields[24],
        fields[25],
        True,
    )
    if not profile.segments_due_ms:
        profile.segments_due_ms = NEVER_MS
    return profile
