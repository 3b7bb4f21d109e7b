"""The row: all that is known of one user, one value in one table.

A row is encoded as

- a short header, which a restore can read without decoding the row (`app.core.row_heads`),
- all that are numbers among the fields that an ordinary event asks for: one MessagePack array, read and written by the
  compiled core itself (`app.core.longs`),
- the texts among them, one after the other, whose lengths are among the numbers,
- all other fields (`app.core.row_parts.Rare`), encoded by themselves. To those more may be added, at the end; the rest
  changes only with the version,
- what most rows have none of, if there is any,
- and the length of the numbers, four bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from librt.strings import BytesWriter, read_i32_be, write_i32_be, write_i64_be
from librt.vecs import vec
from mypy_extensions import i64, mypyc_attr, u8

from app.core.browsing import Browsing
from app.core.id_map import IdMap
from app.core.longs import as_i32, read, write
from app.core.name_map import NameMap
from app.core.panes import NEVER_MS, Panes
from app.core.rare_fields import RareFields
from app.core.row_heads import COUNT_AT, FLAG_OUTBOX, HEAD_BYTES, HEAD_IDS_MAX, UNDECODABLE, BadRow
from app.core.row_parts import Propensity, Rare, Timer
from app.core.row_upgrades import OLDEST_VERSION, Body, read_older
from app.core.window_map import WindowMap

ROW_VERSION: Final = 5
HOURS_PER_WEEK: Final = 168

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
_NUMBERS: Final = 23
"""Numbers that every row has; then come newest times, segments, interests and windows, so that these end the array."""
_LENGTH_BYTES: Final = 4

More = tuple[list[int], list[Timer], Propensity | None, Browsing | None]
"""Missing windows, timers, propensity and browsing."""

FIELDS: Final = (*COMMON_FIELDS, *Rare.__struct_fields__)

_encode = msgspec.msgpack.Encoder().encode
_decode_more = msgspec.msgpack.Decoder(More).decode


@mypyc_attr(acyclic=True)
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
        "_missing",
        "_owes_records",
        "_timers",
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
        affinity: NameMap | Mapping[str, int] | None = None,
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
        self.affinity: NameMap = affinity if isinstance(affinity, NameMap) else NameMap.of(affinity or {})
        self._missing = missing
        self._timers = timers
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

    # Most rows have none of either: the list is made when somebody asks for it.

    @property
    def missing(self) -> list[int]:
        missing = self._missing
        if missing is None:
            missing = self._missing = []
        return missing

    @missing.setter
    def missing(self, value: list[int]) -> None:
        self._missing = value

    @property
    def timers(self) -> list[Timer]:
        timers = self._timers
        if timers is None:
            timers = self._timers = []
        return timers

    @timers.setter
    def timers(self, value: list[Timer]) -> None:
        self._timers = value

    def misses(self) -> bool:
        """Whether any window is missing."""
        return bool(self._missing)

    def due_ms(self) -> int:
        """The earliest instant at which the clock alone can change this row (`NEVER_MS` when none)."""
        due = self.segments_due_ms
        timers = self._timers
        if timers is not None:
            for timer in timers:
                if timer.due_ms < due:
                    due = timer.due_ms
        return due

    def more_bytes(self) -> bytes:
        """Missing windows, timers, propensity and browsing, encoded; empty when there is none of it."""
        missing, timers, propensity, browsing = self._missing, self._timers, self.propensity, self.browsing
        if not missing and not timers and propensity is None and browsing is None:
            return b""
        return _encode((missing or [], timers or [], propensity, browsing))

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


def _bytes(text: str) -> bytes:
    return text.encode() if text else b""


def _put(writer: BytesWriter, text: bytes) -> None:
    if len(text) > 0:  # compiled a comparison; whether bytes are true is asked of the object
        writer.write(text)


class RowEncoder:
    """Encodes rows, one after the other in the same memory."""

    __slots__ = ("_numbers", "_writer")

    def __init__(self) -> None:
        self._numbers: vec[i64] = vec[i64]()
        self._writer = BytesWriter()

    def encode(self, profile: Profile) -> bytes:
        """Header and body, as said above."""
        pairs: i64 = profile.last.size() + profile.segments.size() + profile.affinity.size()
        if len(self._numbers) < _NUMBERS + 2 * pairs:
            self._numbers = vec[i64]([0] * (2 * (_NUMBERS + 2 * pairs)))
        self._writer.truncate(0)
        _encode_row(profile, self._numbers, self._writer)
        return self._writer.getvalue()


def encode_profile(profile: Profile) -> bytes:
    """One row; of several, one `RowEncoder` takes less time."""
    return RowEncoder().encode(profile)


def _encode_row(profile: Profile, numbers: vec[i64], writer: BytesWriter) -> None:
    """`numbers` has room for those of the row but for the windows'; it is overwritten."""
    last, segments, affinity, windows = profile.last, profile.segments, profile.affinity, profile.features
    base: i64 = profile.first_ms
    recent, owed, rare = profile.recent, profile.owed, profile.rare_bytes()
    timezone, device = _bytes(profile.timezone), _bytes(profile.device)
    locale, merged_into = _bytes(profile.locale), _bytes(profile.merged_into)
    owes_records = profile.owes_records()
    names = affinity.text()
    numbers[0] = profile.offset
    numbers[1] = base
    numbers[2] = profile.seen_ms - base
    numbers[3] = profile.events
    numbers[4] = profile.orders
    numbers[5] = profile.revenue_milli
    numbers[6] = profile.order_ms
    numbers[7] = profile.segments_due_ms
    if numbers[7] >= NEVER_MS:
        numbers[7] = 0
    numbers[8] = profile.policy
    numbers[9] = profile.erased_ms
    numbers[10] = 1 if owes_records else 0
    numbers[11] = len(recent)
    numbers[12] = len(owed)
    numbers[13] = len(timezone)
    numbers[14] = len(device)
    numbers[15] = len(locale)
    numbers[16] = len(merged_into)
    numbers[17] = len(rare)
    numbers[18] = len(names)
    numbers[19] = last.size()
    numbers[20] = segments.size()
    numbers[21] = affinity.size()
    window_numbers = windows.numbers()
    numbers[22] = len(window_numbers) - windows.begin()
    at = segments.give(numbers, last.give(numbers, _NUMBERS, base), base)
    at = affinity.give(numbers, at, 0)

    writer.append(u8(ROW_VERSION))
    writer.append(u8(FLAG_OUTBOX) if owes_records or len(owed) else u8(0))
    write_i64_be(writer, profile.due_ms())
    segments.write_ids(writer, HEAD_IDS_MAX)
    begin: i64 = len(writer)
    write(numbers, at, window_numbers, windows.begin(), writer)
    length: i64 = len(writer) - begin
    _put(writer, recent)
    _put(writer, owed)
    _put(writer, timezone)
    _put(writer, device)
    _put(writer, locale)
    _put(writer, merged_into)
    _put(writer, rare)
    _put(writer, names)
    _put(writer, profile.more_bytes())
    write_i32_be(writer, as_i32(length))


def decode_profile(raw: bytes) -> Profile:
    """Raises `BadRow`; of what only the rare fields have wrong, when one of them is asked for."""
    try:
        version = raw[0]
        begin = HEAD_BYTES + 4 * raw[COUNT_AT]
        if version == ROW_VERSION:
            return _decoded(raw, begin)
        if not OLDEST_VERSION <= version < ROW_VERSION:
            raise BadRow(f"row version {version}; this build reads {OLDEST_VERSION} to {ROW_VERSION}")
        return _upgraded(read_older(raw[begin:], version))
    except (IndexError, OverflowError, *UNDECODABLE) as exc:
        raise BadRow(f"not a profile row: {exc}") from exc


def _decoded(raw: bytes, begin: i64) -> Profile:
    end: i64 = len(raw) - _LENGTH_BYTES
    after: i64 = begin + i64(read_i32_be(raw, end))
    if not begin < after <= end:
        raise msgspec.DecodeError("it does not say how long its numbers are")
    numbers = read(raw, begin, after)
    if len(numbers) < _NUMBERS:
        raise msgspec.DecodeError("it has too few numbers")
    last: i64 = numbers[19]
    segments: i64 = numbers[20]
    interests: i64 = numbers[21]
    segments_at: i64 = _NUMBERS + 2 * last
    interests_at: i64 = segments_at + 2 * segments
    windows_at: i64 = interests_at + 2 * interests
    most: i64 = len(numbers)  # of each: larger ones might add up to the right number all the same
    if not (0 <= last <= most and 0 <= segments <= most and 0 <= interests <= most and 0 <= numbers[22] <= most):
        raise msgspec.DecodeError("it has less than nothing of something, or more than all")
    if windows_at + numbers[22] != most:
        raise msgspec.DecodeError("it has another number of numbers")
    owed_at: i64 = after + numbers[11]
    timezone_at: i64 = owed_at + numbers[12]
    device_at: i64 = timezone_at + numbers[13]
    locale_at: i64 = device_at + numbers[14]
    merged_at: i64 = locale_at + numbers[15]
    rare_at: i64 = merged_at + numbers[16]
    names_at: i64 = rare_at + numbers[17]
    more_at: i64 = names_at + numbers[18]
    if not after <= owed_at <= timezone_at <= device_at <= locale_at:
        raise msgspec.DecodeError("a text is shorter than nothing")
    if not locale_at <= merged_at <= rare_at <= names_at <= more_at <= end:
        raise msgspec.DecodeError("a text ends too early")
    missing: list[int] | None = None
    timers: list[Timer] | None = None
    propensity: Propensity | None = None
    browsing: Browsing | None = None
    if more_at < end:
        more: More = _decode_more(raw[more_at:end])
        missing, timers, propensity, browsing = more
    base: i64 = numbers[1]
    if not numbers[7]:
        numbers[7] = NEVER_MS
    return Profile(
        numbers[0],
        base,
        numbers[2] + base,
        numbers[3],
        _part(raw, after, owed_at),
        _text(raw, timezone_at, device_at),
        _text(raw, device_at, locale_at),
        _text(raw, locale_at, merged_at),
        numbers[4],
        numbers[5],
        numbers[6],
        numbers[7],
        numbers[8],
        numbers[9],
        _text(raw, merged_at, rare_at),
        _part(raw, owed_at, timezone_at),
        IdMap.taken(numbers, _NUMBERS, last, base),
        WindowMap.taken(numbers, windows_at),
        IdMap.taken(numbers, segments_at, segments, base),
        NameMap.taken(numbers, interests_at, interests, _part(raw, names_at, more_at)),
        missing,
        timers,
        propensity,
        browsing,
        numbers[10] > 0,
        _part(raw, rare_at, names_at),
    )


def _part(raw: bytes, begin: i64, end: i64) -> bytes:
    return b"" if begin == end else raw[begin:end]


def _text(raw: bytes, begin: i64, end: i64) -> str:
    return "" if begin == end else raw[begin:end].decode()


def _upgraded(fields: Body) -> Profile:
    """The row that an earlier version had so."""
    *common, owes_records, _ = fields
    known: dict[str, Any] = dict(zip(COMMON_FIELDS, common, strict=True))
    return Profile(**known, owes_records=bool(owes_records), encoded=fields[-1])
