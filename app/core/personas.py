"""Personas: which of the groups that the learner found a user belongs to, and what the learner hears of them.

As propensity models do (`app.core.propensity`), a policy with personas looks at each user once a day, at a phase of the
day of their own. A look computes the user's vector, takes the nearest persona of the snapshot in force into the row,
and lets the learner have the vector: one a user and day, so nobody has more say than another, however busy. With many
users only a share of them teaches, as the learner wishes it. Who did nothing for `ACTIVE_MS` is not looked at again
before their next event, and keeps the persona they had.

The row holds the persona, so a replay decides the same whatever the snapshot says by then.
"""

from __future__ import annotations

from typing import Final

from app.core import timers
from app.core.batch import Batch
from app.core.ids import BUCKETS, bucket, decision_id
from app.core.influence import BURST_EVENTS_MAX
from app.core.logged import rounded
from app.core.persona_vector import vector_of
from app.core.profile import Profile
from app.core.propensity import DAY_MS
from app.core.row_parts import Output, Propensity, Timer
from schemas.outcomes import NO_EXAMPLE, Outcome, encode_outcome
from schemas.topics import OUTCOMES

ACTIVE_MS: Final = 28 * DAY_MS
BUCKET: Final = "bucket"
"""Beside the vector, which of 10,000 hash buckets the user is in."""


def on_event(batch: Batch, profile: Profile) -> None:
    """After one of the user's own events, which their activity holds: see to it that they are looked at."""
    if timers.find(profile, timers.LOOK, timers.PERSONAS, "") is None:
        _arm(batch, profile, batch.now_ms)


def _arm(batch: Batch, profile: Profile, after_ms: int) -> None:
    phase_ms = bucket(batch.user, "look\x1f$personas") * DAY_MS // BUCKETS
    due_ms = after_ms - (after_ms - phase_ms) % DAY_MS + DAY_MS
    batch.wake(profile, due_ms)
    timers.put(profile, Timer(due_ms, timers.LOOK, timers.PERSONAS))


def on_timer(batch: Batch, profile: Profile, timer: Timer) -> None:
    """A look."""
    state = profile.propensity
    if state is None:
        return
    plan = batch.index.plan.personas
    if plan is None:  # the policy in force does not ask for personas
        state.persona, state.persona_name = 0, ""
        return
    x = rounded(vector_of(profile, state.activity, batch.now_ms))
    found = batch.personas.nearest(x, state.persona)
    if found is not None:
        if found.id != state.persona:
            batch.count("persona_changes", "first" if not state.persona else "other")
        state.persona, state.persona_name = found.id, plan.names.get(f"p{found.id}", found.name)
    if batch.now_ms - state.activity.at_ms > ACTIVE_MS:
        return
    number = bucket(batch.user, "persona")
    if number < batch.personas.share * BUCKETS and not _is_burst(state):
        _teach(batch, profile, state, x | {BUCKET: float(number)}, timer.due_ms)
    _arm(batch, profile, max(batch.now_ms, timer.due_ms))


def _is_burst(state: Propensity) -> bool:
    """Whether the user did more in an hour than a person can."""
    return bool(state.activity.counts) and state.activity.counts[0] > BURST_EVENTS_MAX


def _teach(batch: Batch, profile: Profile, state: Propensity, x: dict[str, float], look_ms: int) -> None:
    model = batch.index.plan.model
    outcome = Outcome(
        id=decision_id(batch.user, "persona", "", look_ms),
        model=model,
        label=NO_EXAMPLE,
        features=x,
        score=0.0,
        model_version=batch.personas.version,
        campaign="",
        decided_ms=look_ms,
        matured_ms=batch.now_ms,
        persona=state.persona,
    )
    batch.emit(profile, Output(OUTCOMES, model.encode(), encode_outcome(outcome)))
