"""How much one user may teach what everybody shares: models, choices of variants, guards, drift detectors, metrics.

A script that does a thousand things a minute teaches nothing at all. Of a user with many notifications a day only some
examples go out, by the dice of the decision: so nothing that reads `outcomes` has to know of weights, and one user
moves none of it. Opens and the rest are left out alike, so what goes out is not biased. The row counts everything.
"""

from __future__ import annotations

import math
from typing import Final

from app.core.choose import dice, remember
from app.core.ids import stable_id
from app.core.profile import Profile
from app.core.row_parts import Pending, PendingReward

EXAMPLES_DAY_MAX: Final = 8.0
EXAMPLES_HALF_LIFE_MS: Final = 86_400_000
BLAME_AGAIN_MS: Final = 30 * 86_400_000
"""A user's opt-outs within this time of one that was counted are not counted: they may refuse and consent in turns."""
_BLAMED = stable_id("\x1fblamed")

BURST_EVENTS_MAX: Final = 600
EVENTS_A_SECOND_MAX: Final = 1.0
"""A user who, since the decision, did more than the burst and this many events a second is no person."""


def is_quarantined(profile: Profile, pending: Pending | PendingReward, now_ms: int) -> bool:
    """Whether this decision's example must not be learned from.

    Parameters
    ----------
    pending
        `events` says how many events the row had at the decision: what came since is the pace over the very time in
        which the label came about, and costs nothing while events are folded.
    """
    if pending.events < 0:
        return False
    allowed = BURST_EVENTS_MAX + EVENTS_A_SECOND_MAX * max(0, now_ms - pending.decided_ms) / 1000
    return profile.events - pending.events > allowed


def teaches(profile: Profile, decision_id: str, now_ms: int) -> bool:
    """Whether one more example of this user goes out, and a note in the row that there was one.

    Up to `EXAMPLES_DAY_MAX` in roughly a day all do. Beyond, each does with the probability `EXAMPLES_DAY_MAX` over
    their number: some six a day, however many there are, and of a first burst of n `8 (1 + log(n / 8))`.
    """
    profile.examples = [round(1.0 + _count(profile, now_ms), 3), float(now_ms)]
    return _is_taught(profile.examples[0], decision_id)


def reward_teaches(profile: Profile, decision_id: str, now_ms: int) -> bool:
    """Whether the reward of a decision goes out: as `teaches`, of which it is a second half, so it is not counted."""
    return _is_taught(_count(profile, now_ms), decision_id)


def _count(profile: Profile, now_ms: int) -> float:
    """Examples of this user, halved every day."""
    if not profile.examples:
        return 0.0
    count, at_ms = profile.examples
    return count * math.exp2(-max(now_ms - at_ms, 0) / EXAMPLES_HALF_LIFE_MS)


def _is_taught(count: float, decision_id: str) -> bool:
    return count <= EXAMPLES_DAY_MAX or dice(decision_id, "teach") * count < EXAMPLES_DAY_MAX


def is_blamed(profile: Profile, at_ms: int) -> bool:
    """Whether this refusal counts against the notification before it, and a note in the row if it does."""
    before_ms = profile.shown.get(_BLAMED)
    if before_ms is not None and at_ms < before_ms + BLAME_AGAIN_MS:
        return False
    remember(profile, _BLAMED, at_ms)
    return True
