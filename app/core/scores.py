"""What a row says of a user's propensities and persona, and when it will be looked at again."""

from __future__ import annotations

from typing import Final

from app.core.panes import NEVER_MS
from app.core.profile import Profile
from app.core.timers import LOOK

OPEN: Final = "open()"
"""The score of `app.core.open_scores` over all campaigns. No model has such a name: names are letters and digits."""


def open_score(name: str) -> str:
    """Under which name a row keeps the open score of a campaign or a category; of all when `name` is empty."""
    return f"open({name})"


def is_open_score(name: str) -> bool:
    """Whether a score is one of the open model's."""
    return name.startswith("open(")


def score_of(profile: Profile, model: str) -> float | None:
    """The newest score of a user, such as `purchase` or `churn`; None when the user was not looked at yet."""
    return profile.propensity.scores.get(model) if profile.propensity is not None else None


def persona_of(profile: Profile) -> str | None:
    """The name of the user's persona; None when the user was not looked at yet, or there are none."""
    return (profile.propensity.persona_name or None) if profile.propensity is not None else None


def score_step(profile: Profile, ref: int) -> int:
    """When the score may change: at the next look of the model whose name has this stable id."""
    for timer in profile.timers:
        if timer.kind == LOOK and timer.ref == ref:
            return timer.due_ms
    return NEVER_MS
