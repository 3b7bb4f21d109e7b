"""Features of the open model: bounded, finite, from the row alone."""

from __future__ import annotations

import math

import pytest

from app.core.campaign import Campaign, Trigger
from app.core.features import (
    FEATURES_MAX,
    hour_response,
    open_features,
    smoothed_open_rate,
)
from app.core.interest import level_of
from app.core.label_history import EMPTY, LABELS_MAX, RATE_PRIOR_MEAN, DecayedRate, label_count, open_run, push_label
from app.core.plan import Plan, Segment, event_id
from app.core.profile import Profile
from app.core.row_parts import Pending, SendMemory
from schemas.events import NOTIFICATION_OPENED

HOUR = 3_600_000
MONDAY_NOON_UTC = 1_600_084_800_000  # 2020-09-14T12:00:00Z
CART = Campaign(name="cart", category="offers", trigger=Trigger("event", event="Product Added"), variants=())


def _segment(number: int) -> Segment:
    return Segment(f"s{number}", "", lambda *_: True, lambda *_: 0, frozenset(), id=number)


PLAN = Plan(version="1", segment_by_id={n: _segment(n) for n in range(40)})


def _busy() -> Profile:
    now = MONDAY_NOON_UTC
    return Profile(
        first_ms=now - 900 * HOUR,
        timezone="America/New_York",
        device="ios",
        consent=1,
        consent_ms=now - 800 * HOUR,
        last={event_id(NOTIFICATION_OPENED): now - 5 * HOUR},
        segments=dict.fromkeys(range(39, 0, -1), now),
        orders=4,
        revenue_milli=99_000,
        order_ms=now - 30 * HOUR,
        hours={h: 1 + h % 3 for h in range(168)},
        affinity={"offers": level_of(2.0, now - 20 * HOUR)},
        sent=40,
        opened=10,
        labels=(1 << LABELS_MAX) | 0xF0F0F0F0F0F,
        sends=[SendMemory(now - h * HOUR, 1, 1) for h in (300, 100, 20, 2)],
        pending=[Pending(str(n), "cart", "", now, now, 0.1, 0, 1.0, b"") for n in range(5)],
    )


@pytest.mark.parametrize("profile", [Profile(), _busy()], ids=["new", "busy"])
def test_features_are_few_and_finite(profile: Profile) -> None:
    features = open_features(profile, CART, MONDAY_NOON_UTC, PLAN)
    assert len(features) <= FEATURES_MAX
    assert all(math.isfinite(value) for value in features.values())


def test_asking_changes_no_row() -> None:
    profile = _busy()
    open_features(profile, CART, MONDAY_NOON_UTC, PLAN)
    assert profile == _busy()


def test_numbers_are_always_present_so_that_a_missing_one_means_nothing_else() -> None:
    def numeric(profile: Profile) -> set[str]:
        return {name for name in open_features(profile, CART, MONDAY_NOON_UTC, PLAN) if "=" not in name}

    assert numeric(Profile()) == numeric(_busy())


def test_times_in_the_future_count_as_now() -> None:
    profile = Profile(first_ms=MONDAY_NOON_UTC + HOUR, order_ms=MONDAY_NOON_UTC + 9_000 * HOUR)
    features = open_features(profile, CART, MONDAY_NOON_UTC, PLAN)
    assert features["since_first_log_h"] == 0.0
    assert features["since_order_log_h"] == 0.0


def test_a_send_whose_label_is_not_known_is_no_failure() -> None:
    waiting = Pending("a", "cart", "", 1, 1, 0.1, 0, 1.0, b"")
    with_pending = Profile(sent=3, opened=1, pending=[waiting, waiting])
    without = Profile(sent=1, opened=1)
    of = [open_features(p, CART, MONDAY_NOON_UTC, PLAN)["open_logit"] for p in (with_pending, without)]
    assert of[0] == of[1]


def test_a_send_without_receipt_is_not_counted_as_waiting() -> None:
    undelivered = Pending("a", "cart", "", 1, 0, 0.1, 0, 1.0, b"")
    assert open_features(Profile(pending=[undelivered]), CART, MONDAY_NOON_UTC, PLAN)["waiting"] == 0.0


def test_the_choice_of_segments_does_not_hang_on_the_order_of_entering() -> None:
    forward = Profile(segments=dict.fromkeys(range(30), 1))
    backward = Profile(segments=dict.fromkeys(reversed(range(30)), 1))
    assert open_features(forward, CART, 1, PLAN) == open_features(backward, CART, 1, PLAN)


def test_an_unknown_user_has_the_prior_rate() -> None:
    assert smoothed_open_rate(0, 0) == pytest.approx(RATE_PRIOR_MEAN)
    assert 0.0 < smoothed_open_rate(0, 10_000) < smoothed_open_rate(10_000, 10_000) < 1.0


def test_the_hour_a_user_opens_in_scores_above_the_hour_in_which_they_never_do() -> None:
    hours = {day * 24 + 9: 3 for day in range(5)}
    assert hour_response(hours, 15, 9) > 1.0
    assert hour_response(hours, 15, 21) < -1.0
    assert hour_response({}, 0, 9) == 0.0


def _history(labels: list[int]) -> int:
    history = EMPTY
    for label in labels:
        history = push_label(history, label)
    return history


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 31, 59, 60, 61, 200])
def test_a_decayed_rate_equals_brute_force_over_the_newest_labels(count: int) -> None:
    labels = [int(n % 3 == 0 or n % 7 == 2) for n in range(count)]
    held = labels[::-1][:LABELS_MAX]
    for decay, reach in ((0.95, 64), (0.85, 32), (0.5, 8)):
        weights = [decay**i for i in range(len(held))][:reach]
        opens = sum(w * label for w, label in zip(weights, held, strict=False)) + 1.5 * RATE_PRIOR_MEAN
        rate = opens / (sum(weights) + 1.5)
        got = DecayedRate(decay, reach).logit(_history(labels))
        assert got == pytest.approx(math.log(rate / (1 - rate)))


def test_a_history_holds_the_newest_labels_in_a_63_bit_integer() -> None:
    history = _history([0] * 100 + [1] * LABELS_MAX)
    assert label_count(history) == LABELS_MAX
    assert open_run(history) == LABELS_MAX
    assert history < 2**63
    assert open_run(push_label(history, 0)) == 0


def test_recent_rates_tell_apart_users_with_equal_totals() -> None:
    def recent(labels: list[int]) -> float:
        profile = Profile(sent=len(labels), opened=sum(labels), labels=_history(labels))
        return open_features(profile, CART, MONDAY_NOON_UTC, PLAN)["open_fast_logit"]

    assert recent([0] * 6 + [1] * 3) > recent([1] * 3 + [0] * 6) + 1.0
