"""How tired of notifications a user seems, and how much of the hard caps is left to them for it.

A level that events move and time restores, as the wear-out of advertising is modelled: repetition wears, rest restores
(Naik, Mantrala, Sawyer, 1998: Planning Media Schedules in the Presence of Dynamic Advertising Quality; the budget by
user is the idea of Zhao et al., 2018: Notification Volume Control and Optimization System at Pinterest):

    dismissed         level + 1
    not opened        level + 0.06 for each of the run of silences that this one makes, at most 5 of them
    opened            level / 2
    time              level halves in the policy's `half_life`
    share of the caps 1 / (1 + level + 4 * excess risk of an opt-out), at least the policy's `floor`

The numbers are ours; what they do to a simulated audience is in benchmarks/results-experiments.md. The share never
exceeds 1, and the tightened caps are asked besides the hard ones: so these hold whatever the level is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.core.plan import AdaptiveCaps
from app.core.profile import Profile

DISMISSED: Final = 1.0
IGNORED: Final = 0.06
IGNORED_RUN_MAX: Final = 5
RELIEF: Final = 0.5
RISK_WEIGHT: Final = 4.0
LEVEL_MAX: Final = 50.0

RISK_PRIOR_SENDS: Final = 20.0
RISK_PRIOR_RATE: Final = 0.02


def opt_out_risk(profile: Profile) -> float:
    """The share of notifications that the user dismisses, shrunk to a common rate: in (0, 1].

    A dismissal stands for the opt-out that it warns of; opt-outs themselves are too rare to estimate for one user.
    """
    sent = max(profile.sent, profile.dismissed)
    return (profile.dismissed + RISK_PRIOR_RATE * RISK_PRIOR_SENDS) / (sent + RISK_PRIOR_SENDS)


def level(profile: Profile, adaptive: AdaptiveCaps, now_ms: int) -> float:
    """How tired the user is now, 0 or more; a time before the newest change counts as that."""
    age_ms = max(now_ms - profile.weariness_ms, 0)
    return float(profile.weariness * 0.5 ** (age_ms / adaptive.half_life_ms))


def dismissed(profile: Profile, adaptive: AdaptiveCaps, at_ms: int) -> None:
    """The user swiped a notification away."""
    _move(profile, adaptive, at_ms, 1.0, DISMISSED)


def ignored(profile: Profile, adaptive: AdaptiveCaps, at_ms: int) -> None:
    """A label horizon passed without an open; `Profile.ignored_run` counts this one already."""
    _move(profile, adaptive, at_ms, 1.0, IGNORED * min(max(profile.ignored_run, 1), IGNORED_RUN_MAX))


def opened(profile: Profile, adaptive: AdaptiveCaps, at_ms: int) -> None:
    """The user opened a notification."""
    _move(profile, adaptive, at_ms, RELIEF, 0.0)


def _move(profile: Profile, adaptive: AdaptiveCaps, at_ms: int, factor: float, step: float) -> None:
    now_ms = max(at_ms, profile.weariness_ms)
    profile.weariness = min(level(profile, adaptive, now_ms) * factor + step, LEVEL_MAX)
    profile.weariness_ms = now_ms


def share_of_caps(profile: Profile, adaptive: AdaptiveCaps, now_ms: int) -> float:
    """The share of every hard cap that the user is sent now, in [`floor`, 1].

    Examples
    --------
    >>> share_of_caps(Profile(), AdaptiveCaps(0.2, 86_400_000), 0)
    1.0
    """
    excess = max(opt_out_risk(profile) - RISK_PRIOR_RATE, 0.0)
    return max(adaptive.floor, 1.0 / (1.0 + level(profile, adaptive, now_ms) + RISK_WEIGHT * excess))


def tightened(limit: int, window_ms: int, share: float) -> tuple[int, int]:
    """A cap of `limit` sends in `window_ms`, cut to `share` of its rate.

    As many whole sends as the share leaves, at least one, in the window in which they keep the rate: of 2 in a day at a
    quarter that is 1 in two days.

    Examples
    --------
    >>> tightened(2, 24, 0.25), tightened(4, 24, 0.5), tightened(3, 24, 1.0)
    ((1, 48), (2, 24), (3, 24))
    """
    budget = limit * share
    sends = max(1, int(budget + 1e-9))
    return sends, int(window_ms * sends / budget) if budget > 0 else window_ms


def memory_ms(caps: Iterable[tuple[int, int]], adaptive: AdaptiveCaps) -> int:
    """How far back the tightest of these caps (limit, window) looks."""
    return max((tightened(limit, window_ms, adaptive.floor)[1] for limit, window_ms in caps), default=0)
