"""Who is no person, and must not teach the models that everybody shares.

How much one user may teach in a day is bounded by `app.core.answers.example_weight`. This is the other half: a script
that does a thousand things a minute teaches nothing at all. Its row is kept like any other; opens and the rest are left
out alike, so that what is left is not biased.
"""

from __future__ import annotations

from typing import Final

from app.core.profile import Pending, PendingReward, Profile

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
