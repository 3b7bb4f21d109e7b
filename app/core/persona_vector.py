"""What a user is like, as the numbers by which personas are told apart: from what the row holds already.

Two kinds of numbers, because they are scaled differently: measures, each by its own spread, and compositions (hours,
categories, device), each as a whole. Of a composition stands the square root of each share, so that the distance of two
is Hellinger's and a share of nothing is no outlier. Logarithms and shrunk rates keep measures from having outliers
worth the name. Nothing here names a user.

A measure that is missing (the value of an order of who has none) counts as everybody's mean, a part of a composition as
none of it.
"""

from __future__ import annotations

import math
from typing import Final

from app.core.activity import HALF_LIVES_MS, HOURS, Activity
from app.core.features import smoothed_open_rate
from app.core.interest import worth
from app.core.profile import Profile

DAY_MS: Final = 86_400_000
RECENCY_DAYS_MAX: Final = 90.0
"""The recency of who has not bought for longer, or never."""
TENURE_PRIOR_DAYS: Final = 14.0
"""Days without an order that are added to everybody's: who bought on their first day does not buy daily."""
CATEGORIES_MAX: Final = 5
CATEGORY_PRIOR: Final = 2.0
HOUR_PRIOR: Final = 3.0
"""Even visits over the day, and interest in nothing known, that are added: a first visit is no habit."""
BAND_HOURS: Final = 4
BANDS: Final = ("after midnight", "early morning", "morning", "afternoon", "early evening", "late evening")

MEASURES: Final = {
    "recency_log_d": (1.0, 0.2),
    "orders_month_log": (1.0, 0.2),
    "order_value_log": (1.0, 0.2),
    "events_week_log": (0.7, 0.3),
    "active_share": (0.7, 0.05),
    "open_logit": (0.7, 0.3),
    "dismissed_share": (0.5, 0.05),
}
"""Numbers: how much one spread of each weighs in a distance, and the least spread (noise must not be blown up)."""
COMPOSITIONS: Final = {"h": 2.0, "k": 2.0, "d": 0.3}
"""Hours, categories and device (the part of a name before ``=``), and the variance of each as a whole."""


def vector_of(profile: Profile, activity: Activity, now_ms: int) -> dict[str, float]:
    """The user at `now_ms`: at most 7 measures, 6 bands of hours, 5 categories and a device."""
    age_ms = max(now_ms - activity.at_ms, 0)
    tenure_days = max((now_ms - profile.first_ms) / DAY_MS, 0.0)
    orders = max(profile.orders, 0)
    since_days = (now_ms - profile.order_ms) / DAY_MS if profile.order_ms else RECENCY_DAYS_MAX
    rate = smoothed_open_rate(profile.opened, max(profile.sent, profile.opened))
    week = activity.counts[2] * 0.5 ** (age_ms / HALF_LIVES_MS[2]) if activity.counts else 0.0
    x = {
        "recency_log_d": math.log1p(min(max(since_days, 0.0), RECENCY_DAYS_MAX)),
        "orders_month_log": math.log1p(30.0 * orders / (tenure_days + TENURE_PRIOR_DAYS)),
        "events_week_log": math.log1p(week),
        "active_share": _active_share(activity, now_ms, tenure_days),
        "open_logit": math.log(rate / (1.0 - rate)),
        "dismissed_share": profile.dismissed / (max(profile.sent, profile.dismissed) + 5.0),
    }
    if orders:
        x["order_value_log"] = math.log1p(max(profile.revenue_milli, 0) / 1000 / orders)
    x |= _hours(activity.hours) | _categories(profile, now_ms)
    if profile.device:
        x["d=" + profile.device[:32]] = 1.0
    return x


def _active_share(activity: Activity, now_ms: int, tenure_days: float) -> float:
    """Share of the last 30 days (or of all since the first) on which the user did something."""
    passed = now_ms // DAY_MS - activity.at_ms // DAY_MS
    days = (activity.streak << passed & 0x3FFFFFFF).bit_count() if 0 <= passed < 30 else 0
    return days / min(tenure_days + 1.0, 30.0)


def _hours(hours: list[float]) -> dict[str, float]:
    total = sum(hours) + HOUR_PRIOR
    even = HOUR_PRIOR / len(BANDS)
    return {
        f"h={name}": math.sqrt((sum(hours[at * BAND_HOURS : (at + 1) * BAND_HOURS]) + even) / total)
        for at, name in enumerate(BANDS)
    }


def _categories(profile: Profile, now_ms: int) -> dict[str, float]:
    """The square roots of the shares of the favourites among all interest."""
    worths = {name: worth(level, now_ms) for name, level in profile.affinity.items()}
    total = sum(worths.values()) + CATEGORY_PRIOR
    best = sorted(worths, key=lambda name: (-worths[name], name))[:CATEGORIES_MAX]
    return {f"k={name}": math.sqrt(worths[name] / total) for name in best if worths[name] > 0.01}


assert len(BANDS) * BAND_HOURS == HOURS, "the bands cover the day"
