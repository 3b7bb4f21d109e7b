"""When a provider may be asked again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sender.providers.base import Accepted, Rejected, Retry, Unknown
from app.sender.throttle import Throttle, ThrottleSettings

LOST, BUSY = Unknown("timeout"), Retry("http_503")


def broken(*, failures_max: int = 3) -> Throttle:
    """A throttle whose breaker has opened at 0 s, for 2 s."""
    throttle = Throttle(ThrottleSettings(failures_max=failures_max))
    for _ in range(failures_max):
        throttle.ended(LOST, 0.0)
    return throttle


@pytest.mark.parametrize("outcome", [LOST, BUSY])
def test_failures_in_a_row_open_the_breaker(outcome: Unknown | Retry) -> None:
    throttle = Throttle(ThrottleSettings(failures_max=3))
    for _ in range(2):
        throttle.ended(outcome, 0.0)
    assert (throttle.broken, throttle.wait_s(0.0, 5)) == (False, 0.0)
    throttle.ended(outcome, 0.0)
    assert (throttle.broken, throttle.wait_s(0.5, 0)) == (True, 1.5)


@pytest.mark.parametrize("answer", [Accepted(), Rejected("http_400")])
def test_an_answer_between_them_starts_the_count_anew(answer: Accepted | Rejected) -> None:
    throttle = Throttle(ThrottleSettings(failures_max=3))
    for outcome in (LOST, LOST, answer, LOST, LOST):
        throttle.ended(outcome, 0.0)
    assert not throttle.broken


def test_after_a_while_one_attempt_at_a_time_goes_through() -> None:
    throttle = broken()
    assert throttle.wait_s(2.0, 0) == 0.0
    assert throttle.wait_s(2.0, 1) == math.inf


def test_an_answer_to_the_probe_closes_it() -> None:
    throttle = broken()
    throttle.ended(Accepted(), 2.5)
    assert (throttle.broken, throttle.wait_s(2.5, 9)) == (False, 0.0)


def test_a_probe_that_fails_opens_it_for_twice_as_long_within_a_bound() -> None:
    throttle, at_s, waits = broken(), 2.0, []
    for _ in range(8):
        throttle.ended(LOST, at_s)
        waits.append(throttle.wait_s(at_s, 0))
        at_s += waits[-1]
    assert waits == [4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]


def test_failures_that_began_before_it_opened_do_not_prolong_it() -> None:
    throttle = broken()
    for _ in range(50):
        throttle.ended(LOST, 1.0)
    assert throttle.wait_s(1.0, 0) == 1.0


def test_a_retry_after_pauses_without_counting_as_a_failure() -> None:
    throttle = Throttle(ThrottleSettings(failures_max=1, pause_ms_max=5_000))
    throttle.ended(Retry("http_429", 3_000), 10.0)
    assert (throttle.broken, throttle.wait_s(11.0, 0)) == (False, 2.0)
    throttle.ended(Retry("http_429", 3_600_000), 11.0)
    assert throttle.wait_s(11.0, 0) == 5.0


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=200))
def test_no_more_attempts_begin_than_the_rate_allows(gaps: list[float]) -> None:
    throttle, now_s, begun = Throttle(ThrottleSettings(rate_per_s=20.0)), 0.0, []
    for gap in gaps:
        now_s += gap
        now_s += throttle.wait_s(now_s, 0)
        throttle.begin(now_s)
        begun.append(now_s)
    for first in range(len(begun)):
        within = sum(begun[first] <= at_s < begun[first] + 1.0 - 1e-9 for at_s in begun)
        assert within <= 20 + 3, "the rate, and what a tenth of a second saves up"
