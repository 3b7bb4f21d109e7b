"""The sender's decisions, pure: may this be sent now, and what follows from a provider's answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from app.sender.backoff import Backoff
from app.sender.jobs import Job
from app.sender.providers.base import Accepted, Outcome, Rejected, Unknown
from schemas.decisions import Decision
from tables.ledger import State

UNKNOWN: Final = "unknown"
RETRIES_EXHAUSTED: Final = "retries_exhausted"
REASON_CHARS_MAX: Final = 64


class Verdict(enum.Enum):
    """Whether a decision may be sent now; the value is the reason of the receipt where it never may."""

    SEND = "send"
    HOLD = "hold"
    EXPIRED = "expired"
    OPTED_OUT = "opted_out"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """A final state, why, and the provider's own id of the message."""

    state: State
    reason: str = ""
    provider_id: str = ""


@dataclass(frozen=True, slots=True)
class NextDevice:
    """The present device's provider refuses for good: nothing was sent, and the user has another device."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Another attempt, not before `delay_ms` (wall clock) has passed."""

    delay_ms: int


def judge(decision: Decision, *, now_ms: int, suppressed: bool | None) -> Verdict:
    """Asked immediately before every attempt.

    Parameters
    ----------
    now_ms
        Event time.
    suppressed
        None when the suppression feed cannot tell: a promotional message then waits (within its expiry), a
        transactional one goes.
    """
    if decision.expires_ms and now_ms > decision.expires_ms:
        return Verdict.EXPIRED
    if suppressed:
        return Verdict.OPTED_OUT
    if suppressed is None and not decision.transactional:
        return Verdict.HOLD
    return Verdict.SEND


def give_up(job: Job, reason: str) -> Conclusion:
    """It will not be tried (again): failed for `reason`, or unknown if it may have been sent before."""
    if job.maybe_sent:
        return Conclusion(State.UNKNOWN, UNKNOWN)
    return Conclusion(State.FAILED, reason[:REASON_CHARS_MAX])


def conclude(job: Job, provider: str, outcome: Outcome, backoff: Backoff) -> Conclusion | TryAgain | NextDevice:
    """What follows from the answer to try number `job.tries` of the present device; notes a token that is gone.

    A lost answer ends a promotional message as unknown, since a second attempt could be a second notification; a
    transactional one is tried again, and stays unknown unless an attempt is accepted.
    """
    if isinstance(outcome, Accepted):
        return Conclusion(State.SENT, provider_id=outcome.provider_id)
    if isinstance(outcome, Rejected):
        if outcome.gone:
            job.note_gone(provider, outcome.reason)
        return NextDevice() if job.next_device() else give_up(job, outcome.reason)
    if isinstance(outcome, Unknown):
        job.maybe_sent = True
        if not job.decision.transactional:
            return give_up(job, UNKNOWN)
    after_ms = None if isinstance(outcome, Unknown) else outcome.after_ms
    delay_ms = backoff.delay_ms(job.decision.id, job.tries, after_ms)
    return give_up(job, RETRIES_EXHAUSTED) if delay_ms is None else TryAgain(delay_ms)
