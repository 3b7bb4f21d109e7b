"""Segments that one condition lets in and another lets out, and those that hold on to a user for a while.

Without it a user at the edge of a threshold goes in and out with every event, and so does whatever is told to them.

Membership is then a state and not a condition: it is what the row says, changed by ``when`` for those outside and by
``until`` for those inside. The engine asks when the clock may change it before it has written the new state into the
row, so the answer covers both: early perhaps, never late.
"""

from __future__ import annotations

from app.core.expression_context import Expression
from app.core.percentiles import joined
from app.core.plan import Feature
from app.core.profile import Profile


def with_hysteresis(segment_id: int, when: Expression, until: Expression | None, stay_ms: int) -> Expression:
    """A segment that is entered by `when` and left by `until`, but not before `stay_ms`.

    Parameters
    ----------
    until
        None: it is left when `when` no longer holds. Otherwise nobody enters while it holds.
    stay_ms
        Least time inside, milliseconds; 0 for none.
    """
    parts = (when,) if until is None else (when, until)

    def evaluate(profile: Profile, now_ms: int, user: str) -> bool:
        entered_ms = profile.segments.get(segment_id)
        if entered_ms is None:
            return when.evaluate(profile, now_ms, user) and not (until and until.evaluate(profile, now_ms, user))
        if now_ms < entered_ms + stay_ms:
            return True
        return not until.evaluate(profile, now_ms, user) if until else when.evaluate(profile, now_ms, user)

    def next_change(profile: Profile, now_ms: int, user: str) -> int:
        change_ms = min(part.next_change(profile, now_ms, user) for part in parts)
        stays_until_ms = profile.segments.number(segment_id, now_ms) + stay_ms
        return min(change_ms, stays_until_ms) if stays_until_ms > now_ms else change_ms

    features: dict[str, Feature] = {feature.text: feature for part in parts for feature in part.features}
    return Expression(
        text=when.text,
        evaluate=evaluate,
        next_change=next_change,
        features=tuple(features.values()),
        events=frozenset().union(*(part.events for part in parts)),
        clocked=bool(stay_ms) or any(part.clocked for part in parts),
        open_scores=frozenset().union(*(part.open_scores for part in parts)),
        measured=joined(one for part in parts for one in part.measured),
    )
