"""What a row says of a user's propensities: the newest score of each model, and when it will be looked at again."""

from __future__ import annotations

from app.core.panes import NEVER_MS
from app.core.profile import Profile
from app.core.timers import LOOK


def score_of(profile: Profile, model: str) -> float | None:
    """The newest score of a user, such as `purchase` or `churn`; None when the user was not looked at yet."""
    return profile.propensity.scores.get(model) if profile.propensity is not None else None


def score_step(profile: Profile, ref: int) -> int:
    """When the score may change: at the next look of the model whose name has this stable id."""
    for timer in profile.timers:
        if timer.kind == LOOK and timer.ref == ref:
            return timer.due_ms
    return NEVER_MS
