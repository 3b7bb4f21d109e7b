"""Rates that fade with time: 24 bytes, the same in whatever order labels come."""

from __future__ import annotations

import math
import random

import pytest

from app.core.open_rates import CLICK_PRIOR_MEAN, MONTH_S, PRIOR, count, joined, logits
from app.core.profile import Profile, encode_profile
from app.core.row_parts import Pending
from schemas.events import NOTIFICATION_CLICKED, NOTIFICATION_OPENED, NOTIFICATION_SENT
from tests.support.plans import MINUTE, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track

DAY = 86_400_000
NOW = 1_700_000_000_000


def of(labels: list[tuple[int, int]]) -> bytes:
    rates = b""
    for days, opened in labels:
        rates = count(rates, NOW - days * DAY, labels=1.0, opens=opened)
    return rates


def test_a_new_user_has_the_prior() -> None:
    assert logits(b"", NOW) == PRIOR
    assert 1 / (1 + math.exp(-PRIOR[2])) == pytest.approx(CLICK_PRIOR_MEAN)


def test_opens_of_long_ago_count_for_less_than_those_of_lately() -> None:
    was, became = of([(200, 1)] * 10 + [(5, 0)] * 10), of([(200, 0)] * 10 + [(5, 1)] * 10)
    assert all(a < b for a, b in zip(logits(was, NOW)[:2], logits(became, NOW)[:2], strict=True))
    assert logits(was, NOW)[0] < logits(was, NOW)[1]  # a quarter remembers better than a month


def test_half_of_a_label_is_left_after_a_month() -> None:
    sixteen, eight = of([(0, 1)] * 16), of([(0, 1)] * 8)
    assert logits(sixteen, NOW + MONTH_S * 1000)[0] == pytest.approx(logits(eight, NOW)[0], abs=1e-5)


def test_silence_alone_brings_a_user_back_to_the_prior() -> None:
    assert logits(of([(0, 1)] * 50), NOW + 3_000 * DAY) == pytest.approx(PRIOR, abs=1e-4)


def test_labels_may_come_in_any_order_and_in_two_rows() -> None:
    rng = random.Random(5)
    labels = [(rng.randrange(400), rng.randrange(2)) for _ in range(60)]
    expected = pytest.approx(logits(of(labels), NOW), abs=1e-4)
    assert logits(of(sorted(labels)), NOW) == expected
    assert logits(joined(of(labels[:30]), of(labels[30:])), NOW) == expected
    assert logits(joined(of(labels[30:]), of(labels[:30])), NOW) == expected
    assert joined(b"", of(labels)) == of(labels) == joined(of(labels), b"")


@pytest.mark.parametrize("at_ms", [-(10**15), 0, 10**18])
def test_absurd_times_are_bounded(at_ms: int) -> None:
    rates = count(count(b"", at_ms, labels=1.0, opens=1.0), NOW, labels=1.0)
    assert all(math.isfinite(value) for value in logits(rates, NOW))


def test_the_row_grows_by_at_most_32_bytes() -> None:
    plain = Profile(pending=[Pending("d", "c", "a", NOW, NOW, 0.1, 0, 1.0, b"")])
    full = Profile(pending=plain.pending, open_rates=of([(1, 1)] * 200))
    assert len(encode_profile(full)) - len(encode_profile(Profile(pending=plain.pending))) <= 32 - 2


def test_an_answer_is_counted_at_the_time_of_its_send_and_a_click_once() -> None:
    stream = Stream(make_plan(campaigns=[campaign("hello", on_event("Order Completed"))]))
    stream.send(track("Order Completed", START))
    answered = {"decisionId": stream.sends[-1].id}
    stream.at(MINUTE).send(track(NOTIFICATION_SENT, START, **answered))
    assert stream.row.open_rates == b""
    stream.send(track(NOTIFICATION_OPENED, START + MINUTE, **answered))
    assert stream.row.open_rates == count(b"", START, labels=1.0, opens=1.0)
    for _ in range(2):
        stream.send(track(NOTIFICATION_CLICKED, START + MINUTE, **answered))
    assert stream.row.open_rates == count(count(b"", START, labels=1.0, opens=1.0), START, clicks=1.0)
