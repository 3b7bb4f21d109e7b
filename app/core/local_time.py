"""Local time where it is needed: quiet hours and the hour of the week, safe on the nights the clocks change.

Calendar arithmetic is dear, so the core asks for one thing only: a zone's offset from UTC in a quarter of an hour,
cached. Inside a quarter of an hour no zone of the IANA data changes its offset (true since 1972), so everything else
is integer arithmetic.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.core.plan import QuietHours
from app.core.profile import HOURS_PER_WEEK
from schemas.events import epoch_ms

SLOT_MS: Final = 900_000
MINUTE_MS: Final = 60_000
_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_DAYS_TO_1970 = datetime(1970, 1, 1, tzinfo=UTC).toordinal()
_MONDAY_HOURS = 72  # 1970-01-01 was a Thursday


def instant_ms(at: datetime) -> int:
    """As `epoch_ms`; a time in UTC, which is what nearly every event has, by whole numbers alone."""
    if at.tzinfo is not UTC:
        return epoch_ms(at)
    days: int = at.toordinal() - _DAYS_TO_1970
    return (((days * 24 + at.hour) * 60 + at.minute) * 60 + at.second) * 1000 + at.microsecond // 1000


@lru_cache(maxsize=16_384)
def _slot_offset_ms(timezone: str, slot: int) -> int | None:
    try:
        offset = datetime.fromtimestamp(slot * SLOT_MS / 1000, UTC).astimezone(ZoneInfo(timezone)).utcoffset()
    except (ZoneInfoNotFoundError, ValueError, OSError, OverflowError):
        return None
    assert offset is not None, "an aware time has an offset"
    return round(offset.total_seconds() * 1000)


def utc_offset_ms(timezone: str, default: str, at_ms: int) -> int:
    """What to add to `at_ms` to get local time in `timezone`; `default` where that is unknown, else UTC."""
    slot = at_ms // SLOT_MS
    offset = _slot_offset_ms(timezone, slot) if timezone else None
    if offset is None:
        offset = _slot_offset_ms(default, slot)
    return offset or 0


def hour_of_week(timezone: str, default: str, at_ms: int) -> int:
    """0 (Monday 00:00-00:59) to 167, local."""
    local_ms = at_ms + utc_offset_ms(timezone, default, at_ms)
    return (local_ms // _HOUR_MS + _MONDAY_HOURS) % HOURS_PER_WEEK


def _is_quiet(local_ms: int, quiet: QuietHours) -> bool:
    minute = local_ms % _DAY_MS // MINUTE_MS
    if quiet.start_minute <= quiet.end_minute:
        return quiet.start_minute <= minute < quiet.end_minute
    return minute >= quiet.start_minute or minute < quiet.end_minute


def _end_after_ms(local_ms: int, quiet: QuietHours) -> int:
    """Milliseconds of an ordinary clock from `local_ms` to the next end of the window, in (0, 24 h]."""
    return (quiet.end_minute * MINUTE_MS - local_ms % _DAY_MS - 1) % _DAY_MS + 1


def quiet_until(timezone: str, default: str, now_ms: int, quiet: QuietHours) -> int | None:
    """The first instant from `now_ms` on that is not in quiet hours, or None when `now_ms` is not.

    A time is quiet when the clock on the wall shows a minute of the window, so a window is longer or shorter by the
    change on the nights when the clocks change.

    Examples
    --------
    >>> night = QuietHours(start_minute=22 * 60, end_minute=8 * 60)
    >>> quiet_until("UTC", "UTC", 23 * 3_600_000, night) == 32 * 3_600_000
    True
    >>> quiet_until("UTC", "UTC", 12 * 3_600_000, night) is None
    True
    """
    offset = utc_offset_ms(timezone, default, now_ms)
    if not _is_quiet(now_ms + offset, quiet):
        return None
    end_ms = now_ms + _end_after_ms(now_ms + offset, quiet)
    if utc_offset_ms(timezone, default, end_ms) == offset:
        return end_ms
    return _scan_end(timezone, default, now_ms, quiet)


def _scan_end(timezone: str, default: str, now_ms: int, quiet: QuietHours) -> int:
    """As `quiet_until` across a change of the clocks: slot by slot, as the offset is constant in each."""
    at_ms = now_ms
    while True:
        slot_end_ms = (at_ms // SLOT_MS + 1) * SLOT_MS
        local_ms = at_ms + utc_offset_ms(timezone, default, at_ms)
        if not _is_quiet(local_ms, quiet):
            return at_ms
        at_ms = min(slot_end_ms, at_ms + _end_after_ms(local_ms, quiet))
