"""RFM scores and lifecycle stage: two standard readings of how valuable and how lively a customer is.

Scores run from 1 (worst) to 5 (best) over fixed cut points of the policy, after Hughes, *Strategic Database
Marketing* (1994), with cuts in natural units in place of quintiles, so that a score does not move because other
people's behaviour did. A user without an order scores 1 in each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container
from typing import Final, NamedTuple

from app.core.durations import UNITS_MS
from app.core.panes import NEVER_MS
from app.core.profile import Profile

SCORES: Final = (1, 2, 3, 4, 5)
STAGES: Final = ("new", "active", "at_risk", "dormant", "lost")

CutsMs = tuple[int, int, int, int]
Cuts = tuple[float, float, float, float]
StageCuts = tuple[int, int, int, int]


class Lifecycle(NamedTuple):
    """Idle times (since the user's last event) that part the stages; `new_for_ms` counts from the first event."""

    new_for_ms: int = 14 * UNITS_MS["d"]
    at_risk_after_ms: int = 14 * UNITS_MS["d"]
    dormant_after_ms: int = 30 * UNITS_MS["d"]
    lost_after_ms: int = 90 * UNITS_MS["d"]


def days_to_ms(days: Cuts) -> CutsMs:
    """Cut points in days as milliseconds."""
    first, second, third, fourth = (round(day * UNITS_MS["d"]) for day in days)
    return first, second, third, fourth


def recency_score(order_ms: int, now_ms: int, cuts_ms: CutsMs) -> int:
    """5 when the last order is less than the first cut ago, one less for each cut passed; 1 without an order."""
    if not order_ms:
        return 1
    return 5 - bisect_right(cuts_ms, now_ms - order_ms)


def recency_change(order_ms: int, now_ms: int, cuts_ms: CutsMs, accepted: frozenset[int]) -> int:
    """The earliest instant at which the clock moves the recency score into or out of `accepted`."""
    if not order_ms:
        return NEVER_MS
    belongs = recency_score(order_ms, now_ms, cuts_ms) in accepted
    for at, cut_ms in enumerate(cuts_ms):
        if order_ms + cut_ms > now_ms and (4 - at in accepted) != belongs:
            return order_ms + cut_ms
    return NEVER_MS


def recency_step(order_ms: int, now_ms: int, cuts_ms: CutsMs) -> int:
    """The earliest instant at which the clock changes the recency score."""
    if not order_ms:
        return NEVER_MS
    return min((order_ms + cut_ms for cut_ms in cuts_ms if order_ms + cut_ms > now_ms), default=NEVER_MS)


def upward_score(amount: float, cuts: Cuts) -> int:
    """The frequency or monetary score: 1, and one more for each cut that `amount` reaches.

    Examples
    --------
    >>> upward_score(8, (2, 4, 8, 16))
    4
    """
    return 1 + bisect_right(cuts, amount)


def stage(profile: Profile, now_ms: int, cuts: StageCuts) -> str:
    """The lifecycle stage, one of `STAGES`; `cuts` is a `Lifecycle`."""
    new_for_ms, at_risk_after_ms, dormant_after_ms, lost_after_ms = cuts
    idle_ms = now_ms - profile.seen_ms
    if idle_ms >= lost_after_ms:
        return "lost"
    if idle_ms >= dormant_after_ms:
        return "dormant"
    if idle_ms >= at_risk_after_ms:
        return "at_risk"
    return "new" if now_ms - profile.first_ms < new_for_ms else "active"


def stage_change(profile: Profile, now_ms: int, cuts: StageCuts, accepted: Container[str]) -> int:
    """The earliest instant at which the clock moves the stage into or out of `accepted`."""
    belongs = stage(profile, now_ms, cuts) in accepted
    new_for_ms, *idle_cuts_ms = cuts
    bounds = sorted([profile.first_ms + new_for_ms, *(profile.seen_ms + cut_ms for cut_ms in idle_cuts_ms)])
    for at_ms in bounds:
        if at_ms > now_ms and (stage(profile, at_ms, cuts) in accepted) != belongs:
            return at_ms
    return NEVER_MS
