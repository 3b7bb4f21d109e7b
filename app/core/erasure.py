"""Erasing a user, and keeping them erased.

What is left of an erased user is a mark: a row in which nothing stands but when it was erased, at which offset, and
(until they are acknowledged) the outputs that say so. It is kept under a keyed hash of the user, not under the user.

    no row ──event──▶ row ──erase──▶ mark ──consent──▶ row

The mark bars the past: an event before the request is not folded again, however often `events` is read. It bars the
future too: nothing is kept of the user, and so nothing is sent, until they give consent anew, at an event time after
the erasure.
"""

from __future__ import annotations

from typing import Final

from app.core import membership, owed, timers
from app.core.batch import Batch
from app.core.browsing import Browsing, purchases_of, views_of
from app.core.ids import decision_id, stable_id
from app.core.profile import Profile, forget
from app.core.row_parts import EMITTED, SILENT, Output, Timer
from schemas.decisions import ERASED, Decision, decision_headers, encode_decision
from schemas.erasures import PROFILE, ErasureReceipt, Subjects, encode_receipt
from schemas.events import ERASE, NOTIFICATIONS_ENABLED, Event, Rejected, encode_event
from schemas.topics import DECISIONS, ERASURES, EVENTS

TIDY_MS: Final = 60_000
"""After so long the mark is looked at, to drop the outputs it owed: their keys name the user."""
_MARK_BYTE: Final = b"\xff"  # no UTF-8 text begins with it, so no user's key does


class Refusal(Exception):
    """The event must be dead-lettered for this reason."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.reason)
        self.rejected = rejected


def mark_key(subjects: Subjects, user: bytes) -> bytes:
    """The key under which an erased user's mark is kept."""
    return _MARK_BYTE + subjects.of(user)


def is_mark(key: bytes) -> bool:
    """Whether a row's key is that of a mark."""
    return key[:1] == _MARK_BYTE


def bars(profile: Profile, event: Event, at_ms: int) -> bool:
    """Whether the event must leave no trace, because its user was erased and has not come back."""
    if not profile.erased_ms or event.type == ERASE:
        return False
    returns = event.event == NOTIFICATIONS_ENABLED and not event.properties.get("category")
    return not (returns and event.type == "track" and at_ms > profile.erased_ms)


def readmit(batch: Batch, profile: Profile) -> None:
    """The user has come back: the mark becomes a row, which still owes what the mark owed."""
    profile.erased_ms = 0
    profile.timers = []
    batch.moved.add(batch.key)


def fold_erase(batch: Batch, profile: Profile, event: Event, offset: int, subjects: Subjects | None) -> None:
    """Turn the row into a mark that owes the news of it: to the sender, to readers of segments, and the receipt.

    Raises
    ------
    Refusal
        When the request is not signed with our key.
    """
    if subjects is None or not subjects.requested(event):
        raise Refusal(Rejected("erase_refused", "the request is not signed with our key"))
    found = _inventory(profile)
    claimed = event.properties.get("aliases") is True
    # What was merged into this row is this user's, whoever claimed it; and its forwarding address names them.
    aliases = [alias for alias in profile.aliases if claimed or stable_id(alias) in profile.absorbed]
    membership.leave_all(batch, profile, offset, ERASED)
    # In full: packed, they would be the mark's, and it does not know whose it is.
    outputs = [entry for entry in owed.outputs(profile, batch.key) if entry.mark == offset]
    censored = sum(pending.answered not in (EMITTED, SILENT) for pending in profile.pending)
    forget(profile)
    profile.timers, profile.outbox = [], outputs
    profile.offset, profile.erased_ms = offset, batch.now_ms
    for _ in range(censored):
        batch.count("outcomes", "censored")
    request = event.message_id or ""
    _tell_sender(batch, profile, request, offset)
    for alias in aliases:
        again = subjects.request(alias, f"{request}/{stable_id(alias):08x}")
        batch.emit(profile, Output(EVENTS, alias.encode(), encode_event(again)))
    receipt = ErasureReceipt(
        subject=subjects.of(batch.key).hex(),
        request=request,
        part=PROFILE,
        at_ms=batch.now_ms,
        partition=batch.partition,
        offset=offset,
        erased=found,
    )
    batch.emit(profile, Output(ERASURES, receipt.key.encode(), encode_receipt(receipt)))
    tidy_later(batch, profile, mark_key(subjects, batch.key))
    batch.moved.add(batch.key)


def tidy(batch: Batch, profile: Profile, key: bytes, acked_offset: int) -> None:
    """Drop what the mark `key` owed and has been acknowledged; look again while something is left."""
    owed.trim(profile, acked_offset)
    profile.timers = []
    if owed.is_owing(profile):
        tidy_later(batch, profile, key)


def tidy_later(batch: Batch, profile: Profile, key: bytes) -> None:
    """Have the mark `key` looked at when what it owes will have been acknowledged."""
    due_ms = batch.now_ms + TIDY_MS
    profile.timers = [Timer(due_ms, timers.TIDY)]
    batch.due.append((due_ms, key))


def _inventory(profile: Profile) -> dict[str, int]:
    """What there is to erase, by kind; empty kinds are left out."""
    known = profile.events > 0
    counts = {
        "rows": int(known),
        "events_folded": profile.events,
        "traits": len(profile.traits),
        "push_tokens": len(profile.devices),
        "segments": len(profile.segments),
        "products": _products(profile.browsing) if profile.browsing else 0,
        "timers": len(profile.timers) if known else 0,
        "pending_labels": len(profile.pending),
        "unsent_outputs": len(owed.outputs(profile, b"")) if known else 0,
        "aliases": len(profile.aliases),
    }
    return {kind: number for kind, number in counts.items() if number}


def _products(known: Browsing) -> int:
    return len(views_of(known)) + len(purchases_of(known)) + len(known.wishes)


def _tell_sender(batch: Batch, profile: Profile, request: str, offset: int) -> None:
    """A decision that nothing shall be sent, in the order of the user's decisions."""
    decision = Decision(
        id=decision_id(batch.user, "", ERASED, offset),
        user=batch.user,
        action="suppress",
        campaign="",
        category="",
        decided_ms=batch.now_ms,
        reason=ERASED,
        trigger=request,
        source_offset=offset,
    )
    batch.emit(profile, Output(DECISIONS, batch.key, encode_decision(decision), decision_headers(decision)))
