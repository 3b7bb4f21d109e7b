"""Times of a cron line on a user's own clock, safe on the nights the clocks change.

The line is matched against the clock on the wall, without a zone, and each match is then put on the time line: once,
the first time that the wall shows it. A time that the clocks skip comes as much later as they were moved. So a daily
line comes once on every local day, whatever the zone does.
"""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

_GAP_MIN: Final = timedelta(hours=1)
"""Between two times of a line: each wakes every row."""
_MINUTE_MS = 60_000
_BACK = timedelta(hours=26)
"""How far a zone's wall may be behind another instant's: any change of an offset, the crossing of the date line too."""
_CHECKED: Final = 60
_START: Final = datetime(2024, 1, 1)  # noqa: DTZ001 - a clock on a wall, and a leap year
_FIELD = re.compile(r"[0-9*/,\-a-z#L]+", re.IGNORECASE)
_WORD: Final = re.compile(
    r"sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|l", re.IGNORECASE
)


def cron_problem(line: str) -> str:
    """What is wrong with a line of five fields (minute, hour, day of month, month, day of week); empty when nothing is.

    Examples
    --------
    >>> cron_problem("30 18 * * fri")
    ''
    >>> cron_problem("* * * * *")
    'it comes more often than once an hour'
    """
    fields = line.split()
    if len(fields) != 5 or not all(_FIELD.fullmatch(field) for field in fields):
        return "write five fields: minute, hour, day of month, month, day of week, such as '30 18 * * fri'"
    unknown = [word for field in fields for word in re.findall(r"[a-zA-Z]+", field) if not _WORD.fullmatch(word)]
    if unknown:
        return f"unknown word {unknown[0]!r}"
    try:
        times = croniter(line, _START, ret_type=datetime)
        found = [times.get_next() for _ in range(_CHECKED)]
    except (ValueError, KeyError) as exc:
        return f"not a cron line that ever comes: {exc}"
    if min(later - earlier for earlier, later in itertools.pairwise(found)) < _GAP_MIN:
        return "it comes more often than once an hour"
    return ""


def next_at_ms(line: str, timezone: str, default: str, after_ms: int) -> int:
    """The first time of a valid line after `after_ms` on the clock in `timezone`; `default` where that is unknown.

    Examples
    --------
    >>> next_at_ms("0 1 * * *", "UTC", "UTC", 0) == 3_600_000
    True
    """
    return _next_minute(line, timezone, default, after_ms // _MINUTE_MS) * _MINUTE_MS


@lru_cache(maxsize=16_384)
def _next_minute(line: str, timezone: str, default: str, after_minute: int) -> int:
    """In minutes since 1970: users of a zone share the answer."""
    zone = _zone(timezone) or _zone(default) or ZoneInfo("UTC")
    after = datetime.fromtimestamp(after_minute * 60, UTC)
    wall = after.astimezone(zone).replace(tzinfo=None, fold=0)
    times = croniter(line, wall - _BACK, ret_type=datetime)
    while True:
        # Of a time that the wall shows twice, fold=0 is the first; of one that it skips, the offset before counts.
        minute = int(times.get_next().replace(tzinfo=zone, fold=0).timestamp()) // 60
        if minute > after_minute:
            return minute


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
