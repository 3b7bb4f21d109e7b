"""The hour of the week on a user's wall, and when a schedule over it next changes.

Offsets are looked up once a zone and quarter of an hour: every offset and every transition since 1972 falls on a
multiple of 15 minutes. A zone that the database does not know is the default zone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from app.core.panes import NEVER_MS

HOUR_MS: Final = 3_600_000
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS_PER_WEEK: Final = 168

_QUARTER_MS: Final = 900_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_HOUR_OF_WEEK: Final = 3 * 24  # 1970-01-01 was a Thursday
_SPAN_MS: Final = 250 * 365 * 86_400_000  # datetime's range, with room


@lru_cache(maxsize=16_384)
def _offset_ms(zone: str, quarter: int, default: str) -> int:
    at_ms = max(-_SPAN_MS, min(_SPAN_MS, quarter * _QUARTER_MS))
    at = _EPOCH + timedelta(milliseconds=at_ms)
    try:
        offset = at.astimezone(ZoneInfo(zone or default)).utcoffset()
    except (ValueError, KeyError, OSError):  # a made-up name, a path out of the database, a directory of it
        offset = at.astimezone(ZoneInfo(default)).utcoffset()
    return 0 if offset is None else offset // timedelta(milliseconds=1)


def utc_offset_ms(zone: str, now_ms: int, default: str) -> int:
    """What to add to UTC for local time at `now_ms`."""
    return _offset_ms(zone, now_ms // _QUARTER_MS, default)


def hour_of_week(zone: str, now_ms: int, default: str) -> int:
    """The local hour of the week, 0 = Monday 00:00 to 167."""
    local_ms = now_ms + _offset_ms(zone, now_ms // _QUARTER_MS, default)
    return (local_ms // HOUR_MS + _EPOCH_HOUR_OF_WEEK) % HOURS_PER_WEEK


def waits(table: tuple[object, ...]) -> tuple[int, ...]:
    """For each hour of the week, the hours until `table` (shape (168,)) next has another value; 0 for never.

    Examples
    --------
    >>> waits(tuple(hour >= 100 for hour in range(168)))[98:101]
    (2, 1, 68)
    """
    ahead = range(1, HOURS_PER_WEEK)
    return tuple(
        next((step for step in ahead if table[(hour + step) % HOURS_PER_WEEK] != table[hour]), 0)
        for hour in range(HOURS_PER_WEEK)
    )


def schedule_change(zone: str, now_ms: int, default: str, hours_until: tuple[int, ...]) -> int:
    """The earliest instant at which a weekly table may change for this zone.

    Parameters
    ----------
    hours_until
        What `waits` made of the table.
    """
    wait = hours_until[hour_of_week(zone, now_ms, default)]
    if not wait:
        return NEVER_MS
    offset_ms = utc_offset_ms(zone, now_ms, default)
    hour_began_ms = now_ms - (now_ms + offset_ms) % HOUR_MS
    return _before_transition(zone, now_ms, default, hour_began_ms + wait * HOUR_MS)


def _before_transition(zone: str, now_ms: int, default: str, target_ms: int) -> int:
    """`target_ms`, or the zone's offset change if one comes first: the prediction holds only until then.

    Two opposite changes within a week (Morocco's Ramadan is a month) do not occur, so comparing the ends suffices.
    """
    early, late = now_ms // _QUARTER_MS, -(-target_ms // _QUARTER_MS)
    offset_ms = _offset_ms(zone, early, default)
    if _offset_ms(zone, late, default) == offset_ms:
        return target_ms
    while late - early > 1:
        middle = (early + late) // 2
        if _offset_ms(zone, middle, default) == offset_ms:
            early = middle
        else:
            late = middle
    return min(target_ms, late * _QUARTER_MS)
