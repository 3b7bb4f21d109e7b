"""What the open model says of a user when nothing is to be sent: `open_probability()` in conditions.

The model is asked with the features that it would have for a message of now, and its answer stays in the row: what
reads it gives the same at a replay, whatever the model says by then. It is asked anew

- at the user's first event, and when a policy that asks for it reaches the row;
- at each open, and at each notification that was not opened in time: those move it most;
- at a look a day, at a phase of the day of the user's own, as long as they have done something in `ACTIVE_MS` or an
  answer is out. After that only the hour and the segments change what is asked, and it is left until the next event.

Of several campaigns it is their mean. A policy that does not ask for it keeps nothing, and an event costs nothing.
"""

from __future__ import annotations

from typing import Final

from app.core import logged, timers
from app.core.activity import Activity
from app.core.batch import Batch
from app.core.decide import FeaturesOf
from app.core.ids import BUCKETS, bucket, stable_id
from app.core.plan import Scorer
from app.core.profile import Profile
from app.core.row_parts import Propensity, Timer
from app.core.scores import OPEN, is_open_score
from schemas.events import NOTIFICATION_OPENED, Event

ACTIVE_MS: Final = 30 * 86_400_000
_DAY_MS: Final = 86_400_000
LOOK_REF: Final = stable_id(OPEN)


def on_event(batch: Batch, profile: Profile, event: Event, scorer: Scorer, features_of: FeaturesOf) -> None:
    """One of the user's own events: the first of all, and an open, have the model asked."""
    state = profile.propensity
    if (
        state is None
        or state.scores.keys().isdisjoint(batch.index.plan.open_scores)
        or (event.event == NOTIFICATION_OPENED and event.type == "track")
    ):
        ask(batch, profile, scorer, features_of)
    if timers.find(profile, timers.LOOK, LOOK_REF, "") is None:
        _look_again(batch, profile, batch.now_ms)


def adopt(batch: Batch, profile: Profile, scorer: Scorer, features_of: FeaturesOf) -> None:
    """A row comes to a policy, perhaps one that asks for other campaigns."""
    wanted = batch.index.plan.open_scores
    known = profile.propensity.scores if profile.propensity is not None else {}
    if wanted and not wanted.keys() <= known.keys():
        ask(batch, profile, scorer, features_of)
        if timers.find(profile, timers.LOOK, LOOK_REF, "") is None:
            _look_again(batch, profile, batch.now_ms)


def ignored(batch: Batch, profile: Profile, scorer: Scorer, features_of: FeaturesOf) -> None:
    """A label horizon has passed: ask anew, and have the segments judged in this same turn."""
    ask(batch, profile, scorer, features_of)
    profile.segments_due_ms = min(profile.segments_due_ms, batch.now_ms)


def on_timer(batch: Batch, profile: Profile, timer: Timer, scorer: Scorer, features_of: FeaturesOf) -> None:
    """The daily look."""
    ask(batch, profile, scorer, features_of)
    active = batch.now_ms - profile.seen_ms <= ACTIVE_MS
    if batch.index.plan.open_scores and (active or profile.pending):
        _look_again(batch, profile, max(batch.now_ms, timer.due_ms))


def ask(batch: Batch, profile: Profile, scorer: Scorer, features_of: FeaturesOf) -> None:
    """Have the row say what the model says now, of the campaigns that the policy asks for and of no others."""
    plan = batch.index.plan
    state = profile.propensity
    if state is None:
        if not plan.open_scores:
            return
        state = profile.propensity = Propensity(Activity())
    scores = {name: score for name, score in state.scores.items() if not is_open_score(name)}
    by_campaign: dict[str, float] = {}
    for name, campaigns in plan.open_scores.items():
        found: list[float] = []
        for campaign in campaigns:
            score = by_campaign.get(campaign.name)
            if score is None:
                features = logged.rounded(features_of(profile, campaign, batch.now_ms, plan))
                score = by_campaign[campaign.name] = scorer.open_probability(features)
            if 0.0 <= score <= 1.0:  # no NaN either
                found.append(score)
        if found:
            scores[name] = round(sum(found) / len(found), 6)
    state.scores = scores


def _look_again(batch: Batch, profile: Profile, after_ms: int) -> None:
    phase_ms = bucket(batch.user, f"look\x1f{OPEN}") * _DAY_MS // BUCKETS
    due_ms = after_ms - (after_ms - phase_ms) % _DAY_MS + _DAY_MS
    batch.wake(profile, due_ms)
    timers.put(profile, Timer(due_ms, timers.LOOK, LOOK_REF))
