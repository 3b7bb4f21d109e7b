"""What the open model is told about a user and a message at decision time.

Everything here is already in the row, so a feature costs arithmetic only: no scan of history, no second read. The
features are logged with the decision and come back with its label; so the learner never recomputes them, and
training cannot see anything that serving did not. No feature identifies a user.

Names are stable: a renamed feature is a new feature to the model. A name with ``=`` is an indicator (0 or 1), any
other is a number, which the model scales. Left out: features of the template's text, and of other users.
"""

from __future__ import annotations

import math
from typing import Final

from app.core.campaign import Campaign
from app.core.hashing import hashed, trait_feature
from app.core.interest import worth
from app.core.label_history import FAST, MIDDLE, RATE_PRIOR_MEAN, SLOW, open_run
from app.core.local_time import hour_of_week
from app.core.open_rates import logits
from app.core.plan import Plan, event_id
from app.core.profile import HOURS_PER_WEEK, Profile
from schemas.events import APPLICATION_OPENED, NOTIFICATION_OPENED

FEATURES_MAX: Final = 44
SEGMENTS_MAX: Final = 5
TRAITS_MAX: Final = 8
DEVICES: Final = frozenset({"ios", "android", "web", "desktop", "mobile", "tablet"})
"""Devices with a feature of their own; what else a producer calls a device is hashed."""

RATE_PRIOR_SENDS: Final = 3.0
"""Prior of a user's open rate: Beta(0.45, 2.55), worth three sends. Its mean is the usual open rate of broadcasts;
its weight is small because rates differ widely between users (most open nearly never, a few nearly always)."""

HOUR_PRIOR_OPENS: Final = 4.0
NEVER_HOURS: Final = 24.0 * 180
"""A recency of "never", and the longest that any recency can be."""

_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000
_BAND_SHARE = 3 / 24

_OPENED = event_id(NOTIFICATION_OPENED)
_APP_OPENED = event_id(APPLICATION_OPENED)
_SIN = tuple(round(math.sin(math.tau * hour / 24), 6) for hour in range(24))
_COS = tuple(round(math.cos(math.tau * hour / 24), 6) for hour in range(24))
_BANDS = tuple(
    tuple((day * 24 + hour + step) % HOURS_PER_WEEK for day in range(7) for step in (-1, 0, 1)) for hour in range(24)
)
_RATE_PRIOR_OPENS = RATE_PRIOR_MEAN * RATE_PRIOR_SENDS
_log = math.log
_log1p = math.log1p


def smoothed_open_rate(opened: int, matured: int) -> float:
    """Posterior mean of a user's open rate under the prior above, in (0, 1).

    Parameters
    ----------
    opened, matured
        Notifications opened, out of those that the user had a chance to open. A count of opens above `matured`
        (a receipt that got lost) is taken as `matured`.

    Examples
    --------
    >>> smoothed_open_rate(0, 0)
    0.15
    >>> smoothed_open_rate(10, 10) > 0.8
    True
    """
    return (min(opened, matured) + _RATE_PRIOR_OPENS) / (max(matured, 0) + RATE_PRIOR_SENDS)


def hour_response(hours: dict[int, int], opened: int, week_hour: int) -> float:
    """Log ratio of the user's opens around this hour of the day to even opens over the day.

    The band is the hour and its two neighbours on every day; `HOUR_PRIOR_OPENS` even opens are added, so a user
    with no history gets 0.
    """
    if not hours:
        return 0.0
    get = hours.get
    band = 0
    for hour in _BANDS[week_hour % 24]:
        band += get(hour, 0)
    total = max(opened, band)
    return _log((band + HOUR_PRIOR_OPENS * _BAND_SHARE) / ((total + HOUR_PRIOR_OPENS) * _BAND_SHARE))


def _age_log(at_ms: int, now_ms: int) -> float:
    """log1p of the hours since `at_ms` (0 = never), bounded; a time in the future counts as now."""
    if not at_ms:
        return _NEVER_LOG
    hours = (now_ms - at_ms) / _HOUR_MS
    if hours <= 0.0:
        return 0.0
    return _log1p(hours) if hours < NEVER_HOURS else _NEVER_LOG


_NEVER_LOG = _log1p(NEVER_HOURS)


def _send_load(profile: Profile, now_ms: int) -> tuple[int, int]:
    """Decisions to send in the last day, and the time of the newest (0 = none that the row remembers)."""
    sends = profile.sends
    day = 0
    for send in reversed(sends):
        if now_ms - send.at_ms >= _DAY_MS:
            break
        day += 1
    return day, sends[-1].at_ms if sends else 0


def _unlabelled(profile: Profile) -> int:
    """Sent notifications whose label has not matured: they are not failures yet."""
    count = 0
    for pending in profile.pending:
        if pending.sent_ms and not pending.answered:
            count += 1
    return count


def _affinity(profile: Profile, category: str, now_ms: int) -> float:
    level = profile.affinity.get(category)
    return 0.0 if level is None else _log1p(worth(level, now_ms))


def open_features(profile: Profile, campaign: Campaign, now_ms: int, plan: Plan) -> dict[str, float]:
    """The features of sending this campaign's message to this user now.

    Parameters
    ----------
    now_ms
        Decision time, event-time milliseconds since 1970.

    Returns
    -------
    dict
        At most `FEATURES_MAX` names. Numbers are logarithms, rates or small counts, so all are of order 1 to 10.
    """
    hour = hour_of_week(profile.timezone, plan.default_timezone, now_ms)
    day, newest = _send_load(profile, now_ms)
    waiting = _unlabelled(profile)
    matured = max(profile.sent - waiting, profile.opened)
    rate = smoothed_open_rate(profile.opened, matured)
    last = profile.last
    labels = profile.labels
    month, quarter, clicks = logits(profile.open_rates, now_ms)
    features = {
        "open_logit": _log(rate / (1.0 - rate)),
        "open_slow_logit": SLOW.logit(labels),
        "open_middle_logit": MIDDLE.logit(labels),
        "open_fast_logit": FAST.logit(labels),
        "open_run_log": _log1p(open_run(labels)),
        "open_month_logit": month,
        "open_quarter_logit": quarter,
        "click_quarter_logit": clicks,
        "matured_log": _log1p(matured),
        "ignored_log": _log1p(profile.ignored_run),
        "clicked_log": _log1p(profile.clicked),
        "dismissed_log": _log1p(profile.dismissed),
        "waiting": float(waiting),
        "sends_day": float(day),
        "since_send_log_h": _age_log(newest, now_ms),
        "since_open_log_h": _age_log(last.number(_OPENED, 0), now_ms),
        "since_app_log_h": _age_log(last.number(_APP_OPENED, 0), now_ms),
        "since_order_log_h": _age_log(profile.order_ms, now_ms),
        "since_first_log_h": _age_log(profile.first_ms, now_ms),
        "since_consent_log_h": _age_log(profile.consent_ms, now_ms),
        "orders_log": _log1p(max(profile.orders, 0)),
        "revenue_log": _log1p(max(profile.revenue_milli, 0) / 1000),
        "affinity_log": _affinity(profile, campaign.category, now_ms),
        "hour_response": hour_response(profile.hours, profile.opened, hour),
        "hour_sin": _SIN[hour % 24],
        "hour_cos": _COS[hour % 24],
        "c=" + campaign.name: 1.0,
        "k=" + campaign.category: 1.0,
    }
    if hour >= 5 * 24:
        features["weekend="] = 1.0
    if profile.device:
        if profile.device in DEVICES:
            features["d=" + profile.device] = 1.0
        else:
            name, sign = hashed("d", profile.device)
            features[name] = sign
    _add_segments(features, profile, plan)
    if plan.traits:
        _add_traits(features, profile, plan)
    return features


def _add_segments(features: dict[str, float], profile: Profile, plan: Plan) -> None:
    """Indicators of the first segments by id, so that the choice does not hang on the order of entering."""
    known = plan.segment_by_id
    for segment_id in sorted(profile.segments)[:SEGMENTS_MAX]:
        segment = known.get(segment_id)
        if segment is not None:
            features["s=" + segment.name] = 1.0


def _add_traits(features: dict[str, float], profile: Profile, plan: Plan) -> None:
    """The traits that the policy names for its open model."""
    traits = profile.traits
    for trait in plan.traits[:TRAITS_MAX]:
        if (found := trait_feature(trait, traits.get(trait))) is not None:
            features[found[0]] = found[1]
