"""The row: all that is known of one user, one value in one table.

A row is encoded as a short fixed header, which a restore can read without decoding the row (`app.core.row_heads`), and
a MessagePack array: the fields that an ordinary event asks for, and then one more, which is all the others encoded
(`app.core.row_parts.Rare`). To those others more may be added, at the end; what stands before them changes only with
the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from librt.strings import BytesWriter, write_i64_be
from mypy_extensions import i64, u8

from app.core.browsing import Browsing
from app.core.id_map import IdMap
from app.core.panes import NEVER_MS, Panes
from app.core.rare_fields import RareFields
from app.core.row_heads import COUNT_AT, FLAG_OUTBOX, HEAD_BYTES, HEAD_IDS_MAX, UNDECODABLE, BadRow
from app.core.row_parts import Propensity, Rare, Timer
from app.core.row_upgrades import OLDEST_VERSION, upgraded
from app.core.window_map import WindowMap

ROW_VERSION: Final = 5
HOURS_PER_WEEK: Final = 168

Body = tuple[
    int, int, int, int, bytes, str, str, str, int, int, int, int, int, int, str, bytes,
    bytes, bytes, bytes, dict[str, int], list[int],
    list[Timer], Propensity | None, Browsing | None, bool, bytes,
]  # fmt: skip
"""`COMMON_FIELDS` of a row (0 is a time that never comes; last, features and segments are packed), whether its outbox
holds anything, and the rare fields.
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
        last: IdMap | Mapping[int, int] | None = None,
        features: WindowMap | Mapping[int, Panes] | None = None,
        segments: IdMap | Mapping[int, int] | None = None,
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
        self.last: IdMap = last if isinstance(last, IdMap) else IdMap.of(last or {})
        self.features: WindowMap = features if isinstance(features, WindowMap) else WindowMap.of(features or {})
        self.segments: IdMap = segments if isinstance(segments, IdMap) else IdMap.of(segments or {})
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


def _head(flags: int, due_ms: i64, segments: IdMap) -> bytes:
    """The header, see `app.core.row_heads`."""
    writer = BytesWriter()
    writer.append(u8(ROW_VERSION))
    writer.append(u8(flags))
    write_i64_be(writer, due_ms)
    segments.write_ids(writer, HEAD_IDS_MAX)
    return writer.getvalue()


def encode_profile(profile: Profile) -> bytes:
    """Header (version, flags, due time, segment ids) and body."""
    segments = profile.segments
    owes_records = profile.owes_records()
    flags = FLAG_OUTBOX if owes_records or profile.owed else 0
    head = _head(flags, due_ms(profile), segments)
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
        profile.last.pack(),
        profile.features.pack(),
        segments.pack(),
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
        last, features, segments = IdMap(fields[16]), WindowMap(fields[17]), IdMap(fields[18])
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
        last,
        features,
        segments,
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
