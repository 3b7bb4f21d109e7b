"""One user's turn: an event, or the timers that have come due, applied to one row.

The order matters and is always this: fold, then segments (they read what was folded), then triggers, then the arbiter
(it sees every candidate of the instant at once).
"""

from __future__ import annotations

from collections.abc import Mapping

from app.core import (
    answers,
    arbiter,
    erasure,
    fold,
    identity,
    membership,
    merge,
    open_scores,
    personas,
    propensity,
    rewards,
    timers,
    triggers,
)
from app.core.batch import Batch
from app.core.decide import FeaturesOf
from app.core.panes import AGES_AGO_MS, Panes
from app.core.plan import Scorer
from app.core.profile import Profile
from schemas.erasures import Subjects
from schemas.events import ABSORB, ERASE, MERGE, Event


class Turn:
    """Applies events and timers to rows, accumulating in a batch.

    The caller sets the batch's `mark`, `key`, `user` and `source` first, and has it hear an event. Whatever raises
    here leaves the row half-changed: the caller has to put it back.
    """

    __slots__ = ("batch", "features_of", "scorer", "subjects")

    def __init__(self, batch: Batch, scorer: Scorer, features_of: FeaturesOf, subjects: Subjects | None = None) -> None:
        self.batch = batch
        self.scorer = scorer
        self.features_of = features_of
        self.subjects = subjects

    def adopt(self, profile: Profile) -> None:
        """Bring a row that another policy version wrote to this one. A new or a merged row has nothing to bring."""
        if profile.events:
            open_scores.adopt(self.batch, profile, self.scorer, self.features_of)
            membership.on_policy(self.batch, profile)
            triggers.arm_schedules(self.batch, profile)

    def backfill(self, profile: Profile, windows: Mapping[int, Panes], covers: frozenset[int]) -> None:
        """Bring a row that waits for no event to the policy in force. Nobody is notified for it."""
        open_scores.adopt(self.batch, profile, self.scorer, self.features_of)
        membership.backfill(self.batch, profile, windows, covers)
        triggers.arm_schedules(self.batch, profile)

    def thresholds(self, profile: Profile) -> None:
        """Follow the thresholds of percentiles. Nobody is notified for it."""
        membership.on_thresholds(self.batch, profile)

    def event(self, profile: Profile, event: Event, at_ms: int, offset: int) -> bool:
        """Apply an event. Returns False when it was too late to trigger anything (it counts all the same)."""
        batch = self.batch
        index = batch.index
        context = batch.context
        if context and at_ms >= profile.seen_ms:
            identity.fold_context(profile, context, at_ms)
        kind = batch.kind
        if kind == "track":
            reason = batch.name
            ops = index.by_name.get(reason) or index.learn(reason)
            before_ms = fold.fold_track(batch, profile, ops, event, at_ms)
        elif kind == ERASE:
            erasure.fold_erase(batch, profile, event, offset, self.subjects)
            return True
        elif kind == MERGE:
            merge.fold_merge(batch, profile, event, offset, self.subjects)
            return True
        elif kind == ABSORB:
            merge.fold_absorb(batch, profile, event, self.subjects)
            return True
        else:
            reason, ops, before_ms = kind, index.on_traits, AGES_AGO_MS
            batch.suspects = 0
            fold.fold_activity(profile, at_ms)
            merge.ask(batch, profile, event.previous_id if reason == "alias" else event.anonymous_id, self.subjects)
            if reason == "identify":
                identity.fold_identify(profile, event, at_ms)
            else:
                identity.fold_alias(profile, event)
        if index.looks and ops.own:
            self._look(profile, event, at_ms)
        moves = membership.on_event(batch, profile, ops, before_ms, offset, reason)
        candidates = triggers.on_event(batch, profile, ops, event, at_ms, offset) if ops.triggers else None
        in_time = at_ms >= batch.now_ms - index.grace_ms
        if moves and in_time and index.starts:
            candidates = (candidates or []) + triggers.on_moves(batch, moves, batch.properties, offset)
        if candidates:
            arbiter.arbitrate(batch, profile, candidates, self.scorer, self.features_of)
        return in_time

    def _look(self, profile: Profile, event: Event, at_ms: int) -> None:
        """Note one of the user's own events for the models that look at users."""
        batch = self.batch
        if batch.index.propensities or batch.index.plan.personas is not None:
            propensity.on_event(batch, profile, event, at_ms)
        if batch.index.plan.personas is not None:
            personas.on_event(batch, profile)
        if batch.index.plan.open_scores:
            open_scores.on_event(batch, profile, event, self.scorer, self.features_of)

    def clock(self, profile: Profile) -> None:
        """Run what is due in the row."""
        batch = self.batch
        now_ms = batch.now_ms
        candidates = []
        for timer in timers.pop_due(profile, now_ms):
            if timer.kind == timers.HORIZON:
                answers.horizon_passed(batch, profile, timer)
                if batch.index.plan.open_scores:
                    open_scores.ignored(batch, profile, self.scorer, self.features_of)
            elif timer.kind == timers.LOOK and timer.ref == open_scores.LOOK_REF:
                open_scores.on_timer(batch, profile, timer, self.scorer, self.features_of)
            elif timer.kind == timers.LOOK:
                look = personas.on_timer if timer.ref == timers.PERSONAS else propensity.on_timer
                look(batch, profile, timer)
            elif timer.kind == timers.REWARD:
                rewards.matured(batch, profile, timer)
            elif (candidate := triggers.on_timer(batch, profile, timer)) is not None:
                candidates.append(candidate)
        if (due_ms := profile.segments_due_ms) <= now_ms:
            moves = membership.on_clock(batch, profile)
            candidates += triggers.on_moves(batch, moves, {}, due_ms)
        if candidates:
            arbiter.arbitrate(batch, profile, candidates, self.scorer, self.features_of)
