"""Segment membership: entered and left on the event, and on time by the clock alone."""

from __future__ import annotations

from typing import Literal

import xxhash

from app.core.batch import Batch, trace_of
from app.core.expression_judge import Judge
from app.core.index import SegmentOp
from app.core.panes import NEVER_MS
from app.core.plan import Segment
from app.core.profile import Output, Profile
from schemas.segments import MembershipChange, encode_membership
from schemas.topics import SEGMENTS

Cause = Literal["event", "clock", "policy"]
Change = Literal["enter", "leave"]
Changes = list[tuple[Segment, Change]]


def membership_id(user: str, segment: str, change: str, origin: int) -> str:
    """The id of a membership change, the same however often it is computed: 128 bits, hexadecimal.

    Parameters
    ----------
    origin
        The source offset of the event that changed it, or the due time (ms).
    """
    return str(xxhash.xxh3_128_hexdigest(f"{user}\x1f{segment}\x1f{change}\x1f{origin}".encode()))


def on_event(batch: Batch, profile: Profile, judge: Judge, offset: int, reason: str) -> Changes | None:
    """Judge the segments that an event can change; the row's next due time can only come nearer."""
    now_ms = batch.now_ms
    due_before_ms = profile.segments_due_ms
    due_ms, moves = judge(profile, now_ms, batch.user, due_before_ms)
    if due_ms < due_before_ms:
        due_ms = max(due_ms, now_ms + 1)
        batch.wake(profile, due_ms)
        profile.segments_due_ms = due_ms
    if moves is None:
        return None
    return [_move(batch, profile, segment, inside, offset, "event", reason) for segment, inside in moves]


def leave(batch: Batch, profile: Profile, segment: Segment, offset: int, reason: str) -> None:
    """Take a member out for another reason than the segment's condition."""
    _move(batch, profile, segment, False, offset, "event", reason)


def on_clock(batch: Batch, profile: Profile) -> Changes:
    """Evaluate every segment that the clock can change, and find when it can next do so."""
    origin = profile.segments_due_ms
    profile.segments_due_ms = NEVER_MS
    return _evaluate_all(batch, profile, batch.index.clock_segments, origin, "clock")


def on_policy(batch: Batch, profile: Profile) -> None:
    """Bring a row to the present policy version: all segments anew, and nothing kept of what no longer exists.

    Nobody is notified for it: an edited segment would otherwise be a mass mailing.
    """
    index = batch.index
    for segment_id in [known for known in profile.segments if known not in index.segment_ids]:
        del profile.segments[segment_id]
    for feature_id in [known for known in profile.features if known not in index.feature_ids]:
        del profile.features[feature_id]
    due_before_ms, profile.segments_due_ms = profile.segments_due_ms, NEVER_MS
    _evaluate_all(batch, profile, index.segments, index.policy_id, "policy")
    if profile.segments_due_ms < due_before_ms:
        batch.due.append((profile.segments_due_ms, batch.key))
    profile.policy = index.policy_id


def _evaluate_all(
    batch: Batch, profile: Profile, segments: tuple[SegmentOp, ...], origin: int, cause: Cause
) -> Changes:
    now_ms, user = batch.now_ms, batch.user
    changes: Changes = []
    for segment_id, evaluate, next_change, segment in segments:
        inside = evaluate(profile, now_ms, user)
        if inside is not (segment_id in profile.segments):
            changes.append(_move(batch, profile, segment, inside, origin, cause, cause))
        if next_change is not None:
            at_ms = max(next_change(profile, now_ms, user), now_ms + 1)
            profile.segments_due_ms = min(profile.segments_due_ms, at_ms)
    return changes


def _move(
    batch: Batch, profile: Profile, segment: Segment, inside: bool, origin: int, cause: Cause, reason: str
) -> tuple[Segment, Change]:
    change: Change = "enter" if inside else "leave"
    if inside:
        profile.segments[segment.id] = batch.now_ms
    else:
        del profile.segments[segment.id]
    record = MembershipChange(
        id=membership_id(batch.user, segment.name, change, origin),
        user=batch.user,
        segment=segment.name,
        change=change,
        at_ms=batch.now_ms,
        cause=cause,
        reason=reason,
        policy_version=batch.index.plan.version,
    )
    trace = trace_of(batch.source)
    headers = [("traceparent", trace)] if trace else []
    batch.emit(profile, Output(SEGMENTS, batch.key, encode_membership(record), headers))
    batch.move(segment.name, 1 if inside else -1)
    batch.count("segment_changes", change)
    return segment, change
