"""Segment membership: entered and left on the event, and on time by the clock alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from app.core.batch import ALL_SUSPECT, Batch
from app.core.expression_judge import Moves
from app.core.index import EventOps, PlanIndex, SegmentOp
from app.core.owed import Cause
from app.core.panes import NEVER_MS, Panes
from app.core.plan import Segment
from app.core.profile import Profile


def on_event(batch: Batch, profile: Profile, ops: EventOps, before_ms: int, offset: int, reason: str) -> Moves | None:
    """Judge the segments that an event may have changed; the row's next due time can only come nearer.

    Returns what it changed, in the policy's order.

    A segment of which it would show is judged only if it does (`EventOps.always`): after the clock came to the row's
    next change, or with an event that is ahead of the clock, nothing is taken for granted.

    Parameters
    ----------
    before_ms
        The newest time of the event's name before it, `AGES_AGO_MS` if there was none.
    """
    index, now_ms = batch.index, batch.now_ms
    due_before_ms = profile.segments_due_ms
    due_ms, moves = _ask(batch, profile, ops, before_ms)
    if due_ms < due_before_ms:
        due_ms = max(due_ms, now_ms + 1)
        batch.wake(profile, due_ms)
        profile.segments_due_ms = due_ms
    if moves is not None and profile.misses():
        missing = profile.missing
        moves = [move for move in moves if move[0].features.isdisjoint(missing)] or None
    if moves is not None and (unready := index.unready):
        moves = [move for move in moves if move[0].id not in unready] or None
    if moves is not None:
        for segment, inside in moves:
            _move(batch, profile, segment, inside, offset, "event", reason, ops)
    return moves


def _ask(batch: Batch, profile: Profile, ops: EventOps, before_ms: int) -> tuple[int, Moves | None]:
    index, now_ms, user = batch.index, batch.now_ms, batch.user
    due_ms = profile.segments_due_ms
    moves: Moves | None = None
    suspects = batch.suspects
    for pause_ms, bit in ops.pauses:
        if now_ms - before_ms >= pause_ms:
            suspects |= bit
    if profile.policy != index.policy_id:  # a new row
        profile.policy = index.policy_id
        if not ops.welcome:
            index.meet(ops)
        judge = ops.judge_new
        suspects = suspects & ops.settled | ops.open
        if ops.entered:
            moves = ops.entered.copy()
    elif suspects == ALL_SUSPECT:
        judge, suspects, due_ms = ops.judge, 0, now_ms  # the clock has a look at once, and sees when it has to again
    elif now_ms >= due_ms or profile.seen_ms > now_ms:
        judge, suspects = ops.judge, 0
    else:
        judge = ops.always
        suspects |= ops.asked
    if judge is not None:
        due_ms, found = judge(profile, now_ms, user, due_ms)
        if found is not None:
            moves = _together(index, moves, found)
    if suspects:
        due_ms, found = _ask_suspects(batch, profile, ops, suspects, due_ms)
        if found is not None:
            moves = _together(index, moves, found)
    return due_ms, moves


def _together(index: PlanIndex, moves: Moves | None, more: Moves) -> Moves:
    """Both, in the policy's order; each of them is."""
    if moves is None:
        return more
    return sorted(moves + more, key=index.place)


def _ask_suspects(
    batch: Batch, profile: Profile, ops: EventOps, suspects: int, due_ms: int
) -> tuple[int, Moves | None]:
    """Judge segments one by one; `suspects` are their bits."""
    moves: Moves | None = None
    now_ms, held = batch.now_ms, profile.segments
    while suspects:
        bit = suspects & -suspects
        suspects ^= bit
        at = bit.bit_length() - 1
        one = ops.known[at]
        if one is None:
            due_ms, found = ops.judge_one(at)(profile, now_ms, batch.user, due_ms)
            if found is not None:
                moves = found if moves is None else moves + found
            continue
        inside, change_ms = one.known.ask(profile, now_ms)
        if inside != held.has(one.id):
            if moves is None:
                moves = []
            moves.append((one.segment, inside))
        if change_ms < due_ms:
            due_ms = change_ms
    return due_ms, moves


def leave_all(batch: Batch, profile: Profile, offset: int, reason: str) -> None:
    """Take a member out of everything, for another reason than the segments' conditions."""
    for segment_id in list(profile.segments):
        segment = batch.index.plan.segment_by_id.get(segment_id)
        if segment is not None:
            _move(batch, profile, segment, False, offset, "event", reason)


def on_clock(batch: Batch, profile: Profile) -> Moves:
    """Evaluate every segment that the clock can change, and find when it can next do so."""
    origin = profile.segments_due_ms
    profile.segments_due_ms = NEVER_MS
    return _evaluate_all(batch, profile, batch.index.clock_segments, origin, "clock")


def on_policy(batch: Batch, profile: Profile) -> None:
    """Bring a row to the present policy version: all segments anew, and nothing kept of what no longer exists.

    Nobody is notified for it: an edited segment would otherwise be a mass mailing.
    """
    _adopt(batch, profile, "policy")
    _judge_anew(batch, profile, "policy")


def backfill(batch: Batch, profile: Profile, windows: Mapping[int, Panes], covers: frozenset[int]) -> None:
    """As `on_policy`, for a row that waits for no event, with the windows that it never had.

    Parameters
    ----------
    windows
        Totals by feature id, folded from the user's history up to the row's offset; one without events is left out.
    covers
        Ids of the features that were looked for.
    """
    if profile.policy != batch.index.policy_id:
        _adopt(batch, profile, "backfill")
    for feature_id in profile.missing:
        if feature_id not in covers:
            continue
        if feature_id in windows:
            profile.features[feature_id] = windows[feature_id]
        elif feature_id in profile.features:
            del profile.features[feature_id]
    profile.missing = [feature_id for feature_id in profile.missing if feature_id not in covers]
    _judge_anew(batch, profile, "backfill")


def on_thresholds(batch: Batch, profile: Profile) -> None:
    """Judge the segments that ask for percentiles by the thresholds in force. Nobody is notified for it: what changed
    is others.
    """
    due_before_ms = profile.segments_due_ms
    _evaluate_all(batch, profile, batch.index.measured_segments, batch.now_ms, "percentile")
    if profile.segments_due_ms < due_before_ms:
        batch.due.append((profile.segments_due_ms, batch.key))


def merged(batch: Batch, profile: Profile) -> None:
    """All segments anew, after another row was merged into this one. Nobody is notified for it."""
    _judge_anew(batch, profile, "merge")


def _adopt(batch: Batch, profile: Profile, cause: Cause) -> None:
    """Forget what the policy no longer has, and note what it has that the row has not."""
    index = batch.index
    for segment_id in [known for known in profile.segments if known not in index.segment_ids]:
        name = index.earlier.segments.get(segment_id)
        if name is None:
            del profile.segments[segment_id]
        else:
            gone = Segment(name, "", _nobody, _never, frozenset(), id=segment_id)
            _move(batch, profile, gone, False, _policy_origin(batch), cause, cause)
    for feature_id in [known for known in profile.features if known not in index.feature_ids]:
        del profile.features[feature_id]
    profile.missing = index.unasked(profile)
    profile.policy = index.policy_id


def _nobody(_profile: Profile, _now_ms: int, _user: str) -> bool:
    return False


def _never(_profile: Profile, _now_ms: int, _user: str) -> int:
    return NEVER_MS


def _judge_anew(batch: Batch, profile: Profile, cause: Cause) -> None:
    due_before_ms, profile.segments_due_ms = profile.segments_due_ms, NEVER_MS
    _evaluate_all(batch, profile, batch.index.segments, _policy_origin(batch), cause)
    if profile.segments_due_ms < due_before_ms:
        batch.due.append((profile.segments_due_ms, batch.key))


def _policy_origin(batch: Batch) -> int:
    """Of changes that a policy version makes. A rollback brings the same version back, hence the offset."""
    return batch.index.policy_id << 40 | max(batch.mark, 0)


def _evaluate_all(batch: Batch, profile: Profile, segments: tuple[SegmentOp, ...], origin: int, cause: Cause) -> Moves:
    now_ms, user = batch.now_ms, batch.user
    moves: Moves = []
    missing, unready = profile.missing, batch.index.unready
    for segment_id, evaluate, next_change, segment in segments:
        if missing and not segment.features.isdisjoint(missing):
            continue  # judged when the backfill has rebuilt what it reads
        if not (unready and segment_id in unready):
            inside = evaluate(profile, now_ms, user)
            if inside is not profile.segments.has(segment_id):
                moves.append((segment, inside))
                _move(batch, profile, segment, inside, origin, cause, cause)
        if next_change is not None:
            at_ms = max(next_change(profile, now_ms, user), now_ms + 1)
            profile.segments_due_ms = min(profile.segments_due_ms, at_ms)
    return moves


def _move(
    batch: Batch,
    profile: Profile,
    segment: Segment,
    inside: bool,
    origin: int,
    cause: Cause,
    reason: str,
    ops: EventOps | None = None,
) -> None:
    """`ops` are the event's, if one is the cause: they know how changes were put that it made before."""
    known = cast("Any", segment).id  # the object itself: a dictionary finds the same one at once
    segment_id: int = known
    if inside:
        profile.segments.put(segment_id, batch.now_ms)
    else:
        profile.segments.remove(segment_id)
    wordings = None if ops is None else ops.entering if inside else ops.leaving
    wording = None if wordings is None else wordings.get(known)
    if wording is None:
        wording = batch.index.wording(segment, inside, cause, reason)
        if wordings is not None:
            wordings[known] = wording
    batch.emit_move(profile, wording, origin)
