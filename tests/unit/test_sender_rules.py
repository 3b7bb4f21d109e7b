from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sender.backoff import Backoff
from app.sender.jobs import Job
from app.sender.providers.base import Accepted, Rejected, Retry, Unknown
from app.sender.rules import Conclusion, TryAgain, Verdict, conclude, judge
from tables.ledger import State
from tests.support.sender import NOW_MS, WALL_MS, decision

BACKOFF = Backoff(attempts_max=3)


def job(*, transactional: bool = False, tries: int = 1, maybe_sent: bool = False) -> Job:
    made = decision(transactional=transactional)
    return Job(made, 0, WALL_MS, tries=tries, maybe_sent=maybe_sent)


@pytest.mark.parametrize(
    ("late_ms", "suppressed", "transactional", "verdict"),
    [
        (0, False, False, Verdict.SEND),
        (1, False, False, Verdict.EXPIRED),
        (1, False, True, Verdict.EXPIRED),
        (0, True, False, Verdict.OPTED_OUT),
        (0, True, True, Verdict.OPTED_OUT),
        (0, None, False, Verdict.HOLD),
        (1, None, False, Verdict.EXPIRED),
        (0, None, True, Verdict.SEND),
    ],
)
def test_a_verdict_looks_at_expiry_then_at_the_opt_out(
    late_ms: int, suppressed: bool | None, transactional: bool, verdict: Verdict
) -> None:
    made = decision(transactional=transactional, expires_ms=NOW_MS)
    assert judge(made, now_ms=NOW_MS + late_ms, suppressed=suppressed) is verdict


def test_a_decision_without_expiry_never_expires() -> None:
    assert judge(decision(expires_ms=0), now_ms=2**62, suppressed=False) is Verdict.SEND


@pytest.mark.parametrize("transactional", [False, True])
def test_accepted_is_sent_whatever_came_before(transactional: bool) -> None:
    end = conclude(job(transactional=transactional, maybe_sent=True), "fake", Accepted("x"), BACKOFF)
    assert end == Conclusion(State.SENT, provider_id="x")


def test_a_lost_answer_ends_a_promotional_message_as_unknown() -> None:
    assert conclude(job(), "fake", Unknown("read_error"), BACKOFF) == Conclusion(State.UNKNOWN, "unknown")


def test_a_lost_answer_makes_a_transactional_message_try_again() -> None:
    lost = job(transactional=True)
    assert isinstance(conclude(lost, "fake", Unknown("read_error"), BACKOFF), TryAgain)
    lost.tries = 3
    assert conclude(lost, "fake", Retry("http_503"), BACKOFF) == Conclusion(State.UNKNOWN, "unknown")


def test_a_rejection_fails_unless_an_earlier_attempt_may_have_arrived() -> None:
    assert conclude(job(), "fake", Rejected("http_400"), BACKOFF) == Conclusion(State.FAILED, "http_400")
    resent = job(transactional=True, maybe_sent=True)
    assert conclude(resent, "fake", Rejected("http_409"), BACKOFF) == Conclusion(State.UNKNOWN, "unknown")


def test_attempts_are_bounded() -> None:
    assert isinstance(conclude(job(tries=2), "fake", Retry("http_503"), BACKOFF), TryAgain)
    assert conclude(job(tries=3), "fake", Retry("http_503"), BACKOFF) == Conclusion(State.FAILED, "retries_exhausted")


@given(attempt=st.integers(1, 4), after_ms=st.none() | st.integers(0, 120_000), name=st.text(max_size=10))
def test_a_delay_is_bounded_repeatable_and_never_undercuts_retry_after(
    attempt: int, after_ms: int | None, name: str
) -> None:
    backoff = Backoff(attempts_max=5, base_ms=100, step_ms_max=500)
    delay_ms = backoff.delay_ms(name, attempt, after_ms)
    assert delay_ms is not None
    step_ms = min(100 * 2 ** (attempt - 1), 500)
    assert step_ms / 2 <= delay_ms - (after_ms or 0) <= step_ms
    assert delay_ms == backoff.delay_ms(name, attempt, after_ms)


def test_jitter_spreads_messages_that_were_refused_together() -> None:
    delays = {Backoff().delay_ms(f"id{n}", 1) for n in range(100)}
    assert len(delays) > 50


def test_a_provider_that_asks_for_a_longer_pause_than_allowed_is_not_asked_again() -> None:
    backoff = replace(BACKOFF, retry_after_ms_max=1_000)
    assert backoff.delay_ms("id", 1, 1_000) is not None
    assert backoff.delay_ms("id", 1, 1_001) is None
