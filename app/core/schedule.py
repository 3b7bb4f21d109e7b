"""Conditions on the local hour of the week, and when the clock on a user's wall next changes them."""

from __future__ import annotations

from typing import Final

from app.core.local_time import SLOT_MS, hour_of_week, utc_offset_ms
from app.core.panes import NEVER_MS
from app.core.profile import HOURS_PER_WEEK

HOUR_MS: Final = 3_600_000
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


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


def schedule_change(zone: str, default: str, now_ms: int, hours_until: tuple[int, ...]) -> int:
    """The earliest instant after `now_ms` at which a weekly table may change for this zone.

    Parameters
    ----------
    hours_until
        What `waits` made of the table.
    """
    wait = hours_until[hour_of_week(zone, default, now_ms)]
    if not wait:
        return NEVER_MS
    hour_began_ms = now_ms - (now_ms + utc_offset_ms(zone, default, now_ms)) % HOUR_MS
    return _before_transition(zone, default, now_ms, hour_began_ms + wait * HOUR_MS)


def _before_transition(zone: str, default: str, now_ms: int, target_ms: int) -> int:
    """`target_ms`, or the zone's change of offset if one comes first: the prediction holds only until then.

    The ends are compared. That would miss two opposite changes within one week, which no zone has made.
    """
    early, late = now_ms // SLOT_MS, -(-target_ms // SLOT_MS)
    offset_ms = utc_offset_ms(zone, default, early * SLOT_MS)
    if utc_offset_ms(zone, default, late * SLOT_MS) == offset_ms:
        return target_ms
    while late - early > 1:
        middle = (early + late) // 2
        if utc_offset_ms(zone, default, middle * SLOT_MS) == offset_ms:
            early = middle
        else:
            late = middle
    return min(target_ms, late * SLOT_MS)
