"""How active a user is and when: what propensity models are told, at some 200 bytes a row.

A decayed count forgets by half-life, so it needs no panes and no timer: [value, time], brought to now when it is read.
Three half-lives (an hour, a day, a week) tell a visit that is under way from a habit. The counts by hour of the local
day halve with each week as well.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

HOURS: Final = 24
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
HALF_LIVES_MS: Final = (_HOUR_MS, _DAY_MS, 7 * _DAY_MS)
_HOURS_HALF_LIFE_MS: Final = 7 * _DAY_MS
HOUR_PRIOR: Final = 4.0
"""Even visits over the day that are added to a user's hours."""
NEVER_HOURS: Final = 24.0 * 180

_SIN = tuple(round(math.sin(math.tau * hour / HOURS), 6) for hour in range(HOURS))
_COS = tuple(round(math.cos(math.tau * hour / HOURS), 6) for hour in range(HOURS))


class Activity(msgspec.Struct, array_like=True, gc=False):
    """Decayed counts of one user.

    Parameters
    ----------
    at_ms, first_ms
        Newest and oldest event; 0 = none.
    counts
        Events, decayed by `HALF_LIVES_MS`, as of `at_ms`.
    hours
        Visited hours by local hour of the day, decayed, as of `at_ms`: an hour with many events counts once.
    hour
        The newest hour since 1970 that was counted in `hours`.
    streak
        Newest days with an event as bits, bit 0 = the day of `at_ms` (since 1970, UTC).
    """

    at_ms: int = 0
    first_ms: int = 0
    counts: list[float] = []
    hours: list[float] = []
    hour: int = 0
    streak: int = 0


_STREAK_MASK = (1 << 60) - 1


def fold(activity: Activity, at_ms: int, local_hour: int) -> None:
    """Count an event. One older than the newest counts as if it came now, so that nothing is un-forgotten."""
    if not activity.at_ms:
        activity.first_ms = at_ms
        activity.counts = [0.0] * len(HALF_LIVES_MS)
        activity.hours = [0.0] * HOURS
        activity.at_ms = at_ms
    passed_ms = max(at_ms - activity.at_ms, 0)
    if passed_ms:
        activity.counts = [
            count * 0.5 ** (passed_ms / life) for count, life in zip(activity.counts, HALF_LIVES_MS, strict=True)
        ]
        days = at_ms // _DAY_MS - activity.at_ms // _DAY_MS
        activity.streak = (activity.streak << days) & _STREAK_MASK if days < 60 else 0
        activity.at_ms = at_ms
    activity.streak |= 1
    for at in range(len(activity.counts)):
        activity.counts[at] += 1.0
    hour = activity.at_ms // _HOUR_MS
    if hour != activity.hour:
        keep = 0.5 ** (min(hour - activity.hour, 10_000) * _HOUR_MS / _HOURS_HALF_LIFE_MS) if activity.hour else 0.0
        activity.hours = [count * keep for count in activity.hours]
        activity.hours[local_hour % HOURS] += 1.0
        activity.hour = hour


def features(activity: Activity, now_ms: int, local_hour: int) -> dict[str, float]:
    """What is known of a user's activity at `now_ms`; `local_hour` is that of `now_ms`, 0 to 23 (or of the week)."""
    hour = local_hour % HOURS
    age_ms = max(now_ms - activity.at_ms, 0)
    since_h = min(age_ms / _HOUR_MS, NEVER_HOURS) if activity.at_ms else NEVER_HOURS
    lived_h = max(min((now_ms - activity.first_ms) / _HOUR_MS, NEVER_HOURS), 0.0) if activity.first_ms else 0.0
    counts = activity.counts or [0.0] * len(HALF_LIVES_MS)
    now_counts = [count * 0.5 ** (age_ms / life) for count, life in zip(counts, HALF_LIVES_MS, strict=True)]
    days = now_ms // _DAY_MS - activity.at_ms // _DAY_MS
    streak = activity.streak << max(days, 0) & _STREAK_MASK if days < 60 else 0
    return {
        "act_since_log_h": math.log1p(since_h),
        "act_lived_log_h": math.log1p(lived_h),
        "act_hour_log": math.log1p(now_counts[0]),
        "act_day_log": math.log1p(now_counts[1]),
        "act_week_log": math.log1p(now_counts[2]),
        "act_days_week": float((streak & 0x7F).bit_count()),
        "act_days_month": float((streak & 0x3FFFFFFF).bit_count()),
        "act_today": float(streak & 1),
        **_hour_features(activity.hours, hour),
    }


def _hour_features(hours: list[float], hour: int) -> dict[str, float]:
    """The user's habit at this hour of the day and around it, and the hour itself."""
    total = sum(hours)
    own = band = 0.0
    if total:
        own = hours[hour]
        band = own + hours[hour - 1] + hours[(hour + 1) % HOURS]
    return {
        "act_hour_own": math.log((own + HOUR_PRIOR / HOURS) * HOURS / (total + HOUR_PRIOR)),
        "act_hour_band": math.log((band + 3 * HOUR_PRIOR / HOURS) * HOURS / 3 / (total + HOUR_PRIOR)),
        "act_visits_log": math.log1p(total),
        "act_hour_sin": _SIN[hour],
        "act_hour_cos": _COS[hour],
        f"h={hour}": 1.0,
    }
