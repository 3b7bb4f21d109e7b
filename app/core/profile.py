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
from app.core.row_heads import COUNT_AT, FLAG_OUTBOX, HEAD_BYTES, HEAD_IDS_MAX, PACK_HEAD, UNDECODABLE, BadRow
from app.core.row_parts import Propensity, Rare, Timer
from app.core.row_upgrades import OLDEST_VERSION, upgraded

ROW_VERSION: Final = 4
HOURS_PER_WEEK: Final = 168

Body = tuple[
    int, int, int, int, bytes, str, str, str, int, int, int, int, int, int, str, bytes,
    dict[int, int], dict[int, Panes], dict[int, int], dict[str, int], list[int],
    list[Timer], Propensity | None, Browsing | None, bool, bytes,
]  # fmt: skip
"""`COMMON_FIELDS` of a row (0 is a time that never comes), whether its outbox holds anything, and the rare fields."""

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
    "timers",
    "propensity",
    "browsing",
)
"""What an ordinary event asks for."""
FIELDS: Final = (*COMMON_FIELDS, *Rare.__struct_fields__)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode


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
        Feature id to pane state.
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
    encoded, owes_records
        The rare fields, see `RareFields`, and whether the outbox among them holds anything.
    rare
        Rare fields by name, for those who make a row by hand.
    """

    __slots__ = (
        "_owes_records",
        "affinity",
        "browsing",
        "device",
        "erased_ms",
        "events",
        "features",
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
        "timers",
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
        features: dict[int, Panes] | None = None,
        segments: dict[int, int] | None = None,
        affinity: dict[str, int] | None = None,
        missing: list[int] | None = None,
        timers: list[Timer] | None = None,
        propensity: Propensity | None = None,
        browsing: Browsing | None = None,
        owes_records: bool = False,
        encoded: bytes = b"",
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
        self.features: dict[int, Panes] = {} if features is None else features
        self.segments: dict[int, int] = {} if segments is None else segments
        self.affinity: dict[str, int] = {} if affinity is None else affinity
        self.missing: list[int] = [] if missing is None else missing
        self.timers: list[Timer] = [] if timers is None else timers
        self.propensity = propensity
        self.browsing = browsing
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
    due = profile.segments_due_ms
    for timer in profile.timers:
        if timer.due_ms < due:
            due = timer.due_ms
    return due


def encode_profile(profile: Profile) -> bytes:
    """Header (version, flags, due time, segment ids) and body."""
    ids = profile.segments
    count = len(ids)
    owes_records = profile.owes_records()
    flags = FLAG_OUTBOX if owes_records or profile.owed else 0
    if count > HEAD_IDS_MAX:
        ids, count = dict.fromkeys(list(ids)[:HEAD_IDS_MAX], 0), HEAD_IDS_MAX
    head: bytes = PACK_HEAD[count](ROW_VERSION, flags, due_ms(profile), count, *ids)
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
        profile.segments_due_ms if profile.segments_due_ms < NEVER_MS else 0,
        profile.policy,
        profile.erased_ms,
        profile.merged_into,
        profile.owed,
        profile.last,
        profile.features,
        profile.segments,
        profile.affinity,
        profile.missing,
        profile.timers,
        profile.propensity,
        profile.browsing,
        owes_records,
        profile.rare_bytes(),
    )
    return head + _encode(body)


def decode_profile(raw: bytes) -> Profile:
    """Raises `BadRow`; of what only the rare fields have wrong, when one of them is asked for."""
    try:
        version = raw[0]
        body = raw[HEAD_BYTES + 4 * raw[COUNT_AT] :]
        if version != ROW_VERSION:
            if not OLDEST_VERSION <= version < ROW_VERSION:
                raise BadRow(f"row version {version}; this build reads {OLDEST_VERSION} to {ROW_VERSION}")
            body = upgraded(body, version)
        fields: Body = _decode(body)
    except (IndexError, *UNDECODABLE) as exc:
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
    )
    if not profile.segments_due_ms:
        profile.segments_due_ms = NEVER_MS
    return profile
