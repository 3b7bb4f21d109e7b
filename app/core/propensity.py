"""Purchase propensity and churn risk: examples that nobody sent anything for.

Each user is looked at on a grid of their own (a fixed phase of the day for each user and model), not when they do
something: else every example would be of an active moment. A look begins an example with the features and the score of
that instant. Its label goes out a little after the horizon has passed, so that late events still count, and that is a
look as well:

    look      look      look            horizon: 3 days
     |---------|---------|---------|--|
     x  features, score            end label -> outcomes; the next example begins

    purchase: 1 when the model's event happened in (x, end]       churn: 1 when the user did nothing of their own in it

All examples of a model are equally old when they are learned, so none needs a weight for censoring. Who did nothing
for a whole horizon is looked at again after their next event; so the examples are of users who were active within the
horizon, and a churned user makes one example, not one a month for ever.

The newest score stays in the row: what reads it gives the same answer at a replay, whatever the model says by then.
"""

from __future__ import annotations

import math
from typing import Final

from app.core import logged, timers
from app.core.activity import NEVER_HOURS, Activity, features, fold
from app.core.batch import Batch
from app.core.ids import BUCKETS, bucket, decision_id, stable_id
from app.core.local_time import hour_of_week
from app.core.plan import ModelPlan
from app.core.profile import Profile
from app.core.row_parts import Output, Propensity, Timer, Watch
from schemas.events import Event
from schemas.outcomes import Outcome, encode_outcome
from schemas.topics import OUTCOMES

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
RHYTHM_DAYS: Final = 30.0
PRIOR: Final = 0.15
"""The score before a model has a snapshot."""


def on_event(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Take one of the user's own events into their activity and into the labels that wait."""
    state = profile.propensity
    if state is None:
        state = profile.propensity = Propensity(Activity())
    fold(state.activity, at_ms, _hour(batch, profile, at_ms))
    for name, model in batch.index.propensities.items():
        watch = state.watches.get(name)
        if watch is not None and watch.begun_ms < at_ms <= watch.end_ms and model.event in ("", event.event):
            watch.happened = True
        ref = stable_id(name)
        if timers.find(profile, timers.LOOK, ref, "") is None:
            due_ms = next_look(batch.user, name, model, batch.now_ms)
            batch.wake(profile, due_ms)
            timers.put(profile, Timer(due_ms, timers.LOOK, ref))


def next_look(user: str, name: str, model: ModelPlan, after_ms: int) -> int:
    """The user's next instant on the grid, later than `after_ms`; the step is a day, or the horizon if that is less."""
    step_ms = min(model.horizon_ms, DAY_MS)
    phase_ms = bucket(user, f"look\x1f{name}") * step_ms // BUCKETS
    return after_ms - (after_ms - phase_ms) % step_ms + step_ms


def label_due_ms(end_ms: int, model: ModelPlan) -> int:
    """When a label goes out whose horizon ends then: an hour later, less where the horizon is less than a day.

    Waiting for the next look of the grid instead made labels of a day's horizon two days old, and half as many.
    """
    return end_ms + min(model.horizon_ms, DAY_MS) // 24


def on_timer(batch: Batch, profile: Profile, timer: Timer) -> None:
    """A look: emit the label that has matured, score the user, begin an example."""
    state = profile.propensity
    found = batch.index.propensity_by_id.get(timer.ref)
    if state is None:
        return
    if found is None:  # the policy in force does not ask for this model
        state.watches = {name: watch for name, watch in state.watches.items() if stable_id(name) != timer.ref}
        state.scores = {name: score for name, score in state.scores.items() if stable_id(name) != timer.ref}
        return
    name, model = found
    watch = state.watches.get(name)
    if watch is not None and timer.due_ms >= label_due_ms(watch.end_ms, model):
        _mature(batch, profile, name, model, watch)
        del state.watches[name]
        watch = None
    x = logged.rounded(features_of(profile, batch.now_ms, _hour(batch, profile, batch.now_ms)))
    scorer = batch.scorers.get(name)
    score = scorer.open_probability(x) if scorer is not None else PRIOR
    state.scores[name] = score if 0.0 <= score <= 1.0 else PRIOR
    active = batch.now_ms - state.activity.at_ms <= model.horizon_ms
    if watch is None and active:
        version = scorer.version if scorer is not None else 0
        end_ms = batch.now_ms + model.horizon_ms
        state.watches[name] = watch = Watch(batch.now_ms, end_ms, state.scores[name], version, logged.pack(x))
    if watch is not None:
        due_ms = next_look(batch.user, name, model, max(batch.now_ms, timer.due_ms))
        if due_ms >= watch.end_ms:
            due_ms = label_due_ms(watch.end_ms, model)
        batch.wake(profile, due_ms)
        timers.put(profile, Timer(due_ms, timers.LOOK, timer.ref))


def features_of(profile: Profile, now_ms: int, hour: int) -> dict[str, float]:
    """What a propensity model is told of a user; `hour` is the local hour of the week."""
    activity = profile.propensity.activity if profile.propensity is not None else Activity()
    return features(activity, now_ms, hour) | _history(profile) | _rhythm(profile, activity, now_ms)


def _history(profile: Profile) -> dict[str, float]:
    """What the user bought and answered so far."""
    return {
        "orders_log": math.log1p(max(profile.orders, 0)),
        "revenue_log": math.log1p(max(profile.revenue_milli, 0) / 1000),
        "opened_log": math.log1p(max(profile.opened, 0)),
        "ignored_log": math.log1p(max(profile.ignored_run, 0)),
        "order_known": float(bool(profile.order_ms)),
    }


def _rhythm(profile: Profile, activity: Activity, now_ms: int) -> dict[str, float]:
    """How often the user orders, shrunk to once in `RHYTHM_DAYS`, and how overdue the next order is.

    What a model of buying "until they are gone" is made of (Fader, Hardie and Lee, 2005: "Counting Your Customers" the
    Easy Way): the same silence means little of a rare buyer and much of a frequent one.
    """
    lived_days = max(now_ms - activity.first_ms, 0) / DAY_MS if activity.first_ms else 0.0
    since_ms = now_ms - profile.order_ms if profile.order_ms else lived_days * DAY_MS
    gap_days = (lived_days + RHYTHM_DAYS) / (max(profile.orders, 0) + 0.5)
    return {
        "since_order_log_h": math.log1p(min(max(since_ms, 0) / HOUR_MS, NEVER_HOURS)),
        "order_rate_log": -math.log(gap_days),
        "order_due_log": math.log((max(since_ms, 0) / DAY_MS + 1.0) / (gap_days + 1.0)),
    }


def _hour(batch: Batch, profile: Profile, at_ms: int) -> int:
    return hour_of_week(profile.timezone, batch.index.plan.default_timezone, at_ms)


def _mature(batch: Batch, profile: Profile, name: str, model: ModelPlan, watch: Watch) -> None:
    label = int(watch.happened if model.event else not watch.happened)
    outcome = Outcome(
        id=decision_id(batch.user, f"model {name}", "", watch.begun_ms),
        model=name,
        label=label,
        features=logged.unpack(watch.features),
        score=watch.score,
        model_version=watch.model_version,
        campaign="",
        decided_ms=watch.begun_ms,
        matured_ms=batch.now_ms,
    )
    batch.emit(profile, Output(OUTCOMES, name.encode(), encode_outcome(outcome)))
    batch.count("propensity_outcomes", name, str(label))
