"""Durations as a policy writes them: ``15m``, ``48h``, ``1d12h``.

Units are fixed lengths (a day is 24 hours): windows and waits are spans of event time, not calendar days.
"""

from __future__ import annotations

import re
from typing import Final

UNITS_MS: Final[dict[str, int]] = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
DURATION_MAX_MS: Final = 3_660 * UNITS_MS["d"]

_PART = re.compile(r"(\d{1,12})\s*(ms|[smhdw])\s*")
_LARGEST_FIRST = ("d", "h", "m", "s", "ms")


def parse_duration_ms(text: str) -> int:
    """Read a duration.

    Returns
    -------
    int
        Milliseconds, in (0, ten years].

    Raises
    ------
    ValueError
        With the text and what was expected.

    Examples
    --------
    >>> parse_duration_ms("15m"), parse_duration_ms("1d12h")
    (900000, 129600000)
    """
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ValueError(f"{text!r} is not a duration: write a number and a unit (ms, s, m, h, d, w), such as '15m'")
    result = sum(int(number) * UNITS_MS[unit] for number, unit in parts)
    if not 0 < result <= DURATION_MAX_MS:
        raise ValueError(f"{text!r} is out of range: a duration is longer than 0 and at most 3660d")
    return result


def format_duration(duration_ms: int) -> str:
    """The shortest text with one unit that `parse_duration_ms` reads back.

    Examples
    --------
    >>> format_duration(172_800_000), format_duration(5_400_000)
    ('2d', '90m')
    """
    unit = next(unit for unit in _LARGEST_FIRST if duration_ms % UNITS_MS[unit] == 0)
    return f"{duration_ms // UNITS_MS[unit]}{unit}"
