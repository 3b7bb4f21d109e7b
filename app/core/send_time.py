"""At which hour to send: where this user opens, as far as that is known, and where people do, as far as it is not.

The response of a user in an hour of the week is a Beta-binomial posterior mean, shrunk to the global curve (empirical
Bayes: the prior's shape is estimated from everybody):

    response(h) = (opens(h) + PRIOR * rate * curve(h)) / (sends(h) + PRIOR)

with the user's own counts in the hour and its neighbours on every day, the user's shrunk overall `rate`, and `curve(h)`
the global response in that hour of the week relative to the mean. A user of whom nothing is known gets the curve's best
hour; with no curve either, every hour is equal and it is sent at once.

That is `choose: best`; `thompson` draws a curve instead of taking the estimate (`app.core.slot_bandit`). Hours that are
quiet sleep. With novelty an hour in which the user was sent the campaign lately is worth less, and recovers (Yancey and
Settles, 2020, as for variants in `app.core.choose`).

A stated share of decisions takes any hour of the window, by dice that hang on the decision's id: without them only
hours that are in use would ever be learned about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from app.core import local_time
from app.core.campaign import Campaign, SendTime
from app.core.choose import dice, remember
from app.core.ids import stable_id
from app.core.plan import QuietHours
from app.core.profile import HOURS_PER_WEEK, Profile
from app.core.slot_bandit import shares_of_best

PRIOR_SENDS: Final = 8.0
"""How many sends of the user in an hour weigh as much as the curve does."""
RATE_SENDS: Final = 5.0
RATE_MEAN: Final = 0.15
FLAT: Final[tuple[float, ...]] = (1.0,) * HOURS_PER_WEEK
CURVE_PRIOR_SENDS: Final = 100.0
SPREAD_MS: Final = 40 * 60_000
"""Sends are spread over so much of the hour, by the same dice: not everybody at its first second."""
_HOUR_MS: Final = 3_600_000


class Slot(NamedTuple):
    """When to send, and with which probability that hour was chosen among the window's."""

    due_ms: int
    hour: int
    propensity: float


def curve_of(sends: Sequence[int], opens: Sequence[int]) -> tuple[float, ...]:
    """The global curve: each hour of the week's response relative to the mean, shrunk twice.

    The hour of the day (all days together) is shrunk to the mean, the hour of the week to its hour of the day, each by
    `CURVE_PRIOR_SENDS` sends.

    Parameters
    ----------
    sends, opens
        By hour of the week, shape (168,).
    """
    whole_sends, whole_opens = sum(sends), sum(opens)
    if not whole_opens:
        return FLAT
    mean = whole_opens / whole_sends
    daily = []
    for hour in range(24):
        opened = sum(opens[hour::24]) + CURVE_PRIOR_SENDS * mean
        daily.append(opened / (sum(sends[hour::24]) + CURVE_PRIOR_SENDS))
    return tuple(
        (opens[hour] + CURVE_PRIOR_SENDS * daily[hour % 24]) / (sends[hour] + CURVE_PRIOR_SENDS) / mean
        for hour in range(HOURS_PER_WEEK)
    )


def response(profile: Profile, curve: Sequence[float], hour: int) -> float:
    """The user's estimated open rate of what is sent in an hour of the week."""
    sent = opened = 0
    band = ((hour - 1) % 24, hour % 24, (hour + 1) % 24)
    for at, number in profile.hour_sends.items():
        if at % 24 in band:
            sent += number
            opened += profile.hour_opens.get(at, 0)
    prior = PRIOR_SENDS * _rate(profile.hour_sends, profile.hour_opens)
    return (opened + prior * curve[hour]) / (sent + PRIOR_SENDS)


def _rate(sends: Mapping[int, int], opens: Mapping[int, int]) -> float:
    return (sum(opens.values()) + RATE_SENDS * RATE_MEAN) / (sum(sends.values()) + RATE_SENDS)


def slots(
    profile: Profile, default_timezone: str, now_ms: int, within_ms: int, quiet: QuietHours | None
) -> list[tuple[int, int]]:
    """The beginnings of the local hours from now to `within_ms` later, and their hours of the week: (ms, hour).

    The first is now. None is in quiet hours; none may be left.
    """
    found = []
    at_ms = now_ms
    while at_ms <= now_ms + within_ms:
        if quiet is None or local_time.quiet_until(profile.timezone, default_timezone, at_ms, quiet) is None:
            found.append((at_ms, local_time.hour_of_week(profile.timezone, default_timezone, at_ms)))
        local_ms = at_ms + local_time.utc_offset_ms(profile.timezone, default_timezone, at_ms)
        at_ms += _HOUR_MS - local_ms % _HOUR_MS
    return found


def choose_slot(
    profile: Profile,
    send_time: SendTime,
    curve: Sequence[float],
    *,
    decision_id: str,
    default_timezone: str,
    now_ms: int,
    quiet: QuietHours | None,
    campaign: str = "",
) -> Slot | None:
    """When to send a decision of `campaign`; None when every hour of the window is quiet.

    Among equal hours the earliest wins. The chosen hour's `due_ms` is now, or spread over that hour as long as it is
    within the window and not in quiet hours.
    """
    window = slots(profile, default_timezone, now_ms, send_time.within_ms, quiet)
    if not window:
        return None
    best = _exploiting(profile, send_time, curve, campaign, window)
    explored = dice(decision_id, "explore-slot") < send_time.explore
    point = dice(decision_id, "slot")
    at = min(int(point * len(window)), len(window) - 1) if explored else _drawn(best, point)
    share = send_time.explore / len(window)
    due_ms, hour = window[at]
    if due_ms > now_ms:
        due_ms = _spread(profile, default_timezone, due_ms, now_ms + send_time.within_ms, decision_id, quiet)
    return Slot(due_ms, hour, share + (1.0 - send_time.explore) * best[at])


def _exploiting(
    profile: Profile, send_time: SendTime, curve: Sequence[float], campaign: str, window: Sequence[tuple[int, int]]
) -> list[float]:
    """The probability of each slot of the window when nothing is explored, summing to 1."""
    rate = _rate(profile.hour_sends, profile.hour_opens)
    hours = [hour for _, hour in window]
    tired = [_tiredness(profile, send_time, campaign, at_ms, hour) for at_ms, hour in window]
    if send_time.choose == "thompson":
        return shares_of_best(profile.hour_sends, profile.hour_opens, rate, curve, hours, tired)
    scores = {hour: response(profile, curve, hour) for hour in set(hours)}
    worth = [scores[hour] - rate * less for hour, less in zip(hours, tired, strict=True)]
    best = worth.index(max(worth))
    return [float(at == best) for at in range(len(window))]


def _drawn(shares: Sequence[float], point: float) -> int:
    for at, share in enumerate(shares):
        point -= share
        if point < 0:
            return at
    return max(at for at, share in enumerate(shares) if share > 0)


def _tiredness(profile: Profile, send_time: SendTime, campaign: str, at_ms: int, hour: int) -> float:
    novelty = send_time.novelty
    if novelty is None:
        return 0.0
    used_ms = profile.shown.get(_used_key(campaign, hour))
    if used_ms is None:
        return 0.0
    return float(novelty.penalty * 0.5 ** (max(at_ms - used_ms, 0) / novelty.half_life_ms))


def remember_used(profile: Profile, campaign: Campaign, default_timezone: str, now_ms: int) -> None:
    """Note at which hour of the day the user is sent the campaign, where it asks for it."""
    if campaign.send_time is not None and campaign.send_time.novelty is not None:
        hour = local_time.hour_of_week(profile.timezone, default_timezone, now_ms)
        remember(profile, _used_key(campaign.name, hour), now_ms)


def _used_key(campaign: str, hour: int) -> int:
    return stable_id(f"{campaign}\x1fhour {hour % 24}")


def _spread(
    profile: Profile, default_timezone: str, start_ms: int, end_ms: int, decision_id: str, quiet: QuietHours | None
) -> int:
    due_ms = min(start_ms + int(dice(decision_id, "spread") * SPREAD_MS), end_ms)
    if quiet is not None and local_time.quiet_until(profile.timezone, default_timezone, due_ms, quiet) is not None:
        return start_ms
    return due_ms
