"""Anonymous becomes known: two rows made one, wherever they live.

The rows of a user's two ids are in two partitions, which two workers may own, so they are brought together through the
input topic, and each step stands in a row's outbox before it is taken:

    alias K ← A (key K)   K remembers A and asks:       merge A into K   (key A)
    merge     (key A)     A leaves its segments, says:  absorb this row  (key K), and becomes a forwarding address
    absorb    (key K)     K adds what A knew, once; all segments are judged anew, and nobody is notified for it
    any event (key A)     from then on is passed on to K, under its own message id

Requests are signed: nobody but the engine can merge rows. A row is merged into one other; who comes second is refused.
Of two ids that claim each other, the one that sorts first stays. What was published twice is told by the message id
and by `Profile.absorbed`.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from app.core import membership, merge_rows, triggers
from app.core.batch import Batch, trace_of
from app.core.effects import Record
from app.core.erasure import Refusal
from app.core.id_map import IdMap
from app.core.ids import stable_id
from app.core.profile import Profile, encode_profile, forget
from app.core.row_heads import BadRow
from app.core.row_parts import Output
from app.core.whole_row import decode_whole
from schemas.erasures import Subjects
from schemas.events import ABSORB, MERGE, USER_CHARS_MAX, Event, Rejected, encode_event
from schemas.topics import EVENTS

ABSORBED_MAX: Final = 64
HOPS_MAX: Final = 8
_HOPS: Final = "nudge-hops"


def ask(batch: Batch, profile: Profile, alias: str | None, subjects: Subjects | None) -> None:
    """`alias` is another id of this row's user: have its row merged into this one, unless that was asked before."""
    known = not alias or alias == batch.user or alias in profile.aliases or len(alias) > USER_CHARS_MAX
    if known or subjects is None or alias is None:
        return
    request = subjects.merge_request(alias, batch.user)
    batch.emit(profile, Output(EVENTS, alias.encode(), encode_event(request)))
    batch.count("merges", "asked")


def fold_merge(batch: Batch, profile: Profile, event: Event, offset: int, subjects: Subjects | None) -> None:
    """Give this row to another and leave a forwarding address. Raises `Refusal` when the request is not signed."""
    into = subjects.merging(event) if subjects is not None else None
    if into is None or subjects is None:
        raise Refusal(Rejected("merge_refused", "the request is not signed with our key"))
    if profile.merged_into or into == batch.user or (into in profile.aliases and batch.user < into):
        batch.count("merges", "repeated" if profile.merged_into == into else "refused")
        return
    membership.leave_all(batch, profile, offset, MERGE)
    if profile.events:
        batch.emit(profile, Output(EVENTS, into.encode(), _absorb(subjects, into, batch.user, profile)))
    forget(profile, keep=("recent", "outbox", "owed"))
    profile.offset, profile.merged_into = offset, into
    batch.count("merges", "given")


def _absorb(subjects: Subjects, into: str, alias: str, profile: Profile) -> bytes:
    kept = profile.outbox, profile.owed
    profile.outbox, profile.owed, profile.segments = [], b"", IdMap()
    row = base64.b64encode(encode_profile(profile)).decode()
    profile.outbox, profile.owed = kept
    return encode_event(subjects.absorb_request(into, alias, row))


def fold_absorb(batch: Batch, profile: Profile, event: Event, subjects: Subjects | None) -> None:
    """Add another row to this one. Raises `Refusal` when the message is not ours, or not a row."""
    found = subjects.absorbing(event) if subjects is not None else None
    if found is None:
        raise Refusal(Rejected("merge_refused", "the row is not signed with our key"))
    alias, row = found
    mark = stable_id(alias)
    if mark in profile.absorbed:
        batch.count("merges", "repeated")
        return
    try:
        other = decode_whole(base64.b64decode(row))
    except (BadRow, ValueError) as exc:
        raise Refusal(Rejected("merge_refused", "the message holds no row")) from exc
    due_before_ms = profile.due_ms()
    for _ in range(merge_rows.merge_rows(profile, other, batch.index.features, batch.now_ms)):
        batch.count("dropped_timers")
    profile.absorbed = [*profile.absorbed, mark][-ABSORBED_MAX:]
    if alias not in profile.aliases:
        profile.aliases = [*profile.aliases, alias]
    if profile.browsing is not None:
        batch.wished += [(item, batch.key) for item in profile.browsing.wishes]
    profile.policy = batch.index.policy_id
    membership.merged(batch, profile)
    triggers.arm_schedules(batch, profile)
    if (next_ms := profile.due_ms()) < due_before_ms:
        batch.due.append((next_ms, batch.key))
    batch.count("merges", "absorbed")


def forward(
    batch: Batch, profile: Profile, event: Event, at_ms: int, source: Record, subjects: Subjects | None
) -> None:
    """Pass an event of a merged row on to where the user is now. Raises `Refusal` when it has gone in a circle."""
    hops = next((int(value) for name, value in source.headers if name == _HOPS and value and value.isdigit()), 0)
    if hops >= HOPS_MAX:
        raise Refusal(Rejected("merge_loop", f"passed on {hops} times"))
    into = profile.merged_into
    if event.type == ABSORB:
        found = subjects.absorbing(event) if subjects is not None else None
        if found is None or subjects is None:
            raise Refusal(Rejected("merge_refused", "the row is not signed with our key"))
        passed = subjects.absorb_request(into, *found)
    else:
        passed = msgspec.structs.replace(
            event,
            user_id=into,
            anonymous_id=None,
            timestamp=at_ms,
            message_id=event.message_id or f"{batch.partition}:{source.offset}:{stable_id(batch.user):08x}",
        )
    headers = [(_HOPS, str(hops + 1).encode())]
    if trace := trace_of(source):
        headers.append(("traceparent", trace))
    batch.emit(profile, Output(EVENTS, into.encode(), encode_event(passed), headers))
