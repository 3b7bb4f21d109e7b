"""Decayed activity: what a row remembers of a user's habits."""

from __future__ import annotations

import math

import msgspec
import pytest

from app.core.activity import NEVER_HOURS, Activity, features, fold

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 20_000 * DAY_MS


def visited(*at_ms: int) -> Activity:
    activity = Activity()
    for at in at_ms:
        fold(activity, at, at // HOUR_MS % 24)
    return activity


def test_nobody_yet_is_finite() -> None:
    x = features(Activity(), NOW_MS, 13)
    assert all(math.isfinite(value) for value in x.values())
    assert x["act_since_log_h"] == pytest.approx(math.log1p(NEVER_HOURS))
    assert x["act_hour_own"] == 0.0


def test_a_count_halves_with_its_half_life() -> None:
    x = features(visited(NOW_MS, NOW_MS), NOW_MS + DAY_MS, 0)
    assert math.expm1(x["act_day_log"]) == pytest.approx(1.0)
    assert math.expm1(x["act_hour_log"]) == pytest.approx(2 * 0.5**24)


def test_counts_do_not_depend_on_when_they_are_read() -> None:
    often = visited(NOW_MS)
    for at in range(10):
        features(often, NOW_MS + at * HOUR_MS, 3)
    assert often == visited(NOW_MS)


def test_the_users_own_hours_stand_out() -> None:
    habit = visited(*(NOW_MS + day * DAY_MS + 9 * HOUR_MS for day in range(7)))
    at_ms = NOW_MS + 7 * DAY_MS
    assert features(habit, at_ms, 9)["act_hour_own"] > 1.0 > 0.0 > features(habit, at_ms, 20)["act_hour_own"]


def test_an_hour_with_many_events_is_one_visit() -> None:
    assert visited(*(NOW_MS + second for second in range(50))).hours[0] == 1.0


def test_days_with_an_event_are_counted_in_windows() -> None:
    activity = visited(NOW_MS, NOW_MS + 2 * DAY_MS, NOW_MS + 20 * DAY_MS)
    x = features(activity, NOW_MS + 21 * DAY_MS, 0)
    assert (x["act_days_week"], x["act_days_month"], x["act_today"]) == (1.0, 3.0, 0.0)


def test_a_late_event_does_not_turn_the_clock_back() -> None:
    activity = visited(NOW_MS, NOW_MS - DAY_MS)
    assert activity.at_ms == NOW_MS
    assert math.expm1(features(activity, NOW_MS, 0)["act_week_log"]) == pytest.approx(2.0)


def test_a_row_of_years_stays_small() -> None:
    activity = visited(*(NOW_MS + hour * HOUR_MS for hour in range(0, 24 * 800, 5)))
    assert len(msgspec.msgpack.encode(activity)) < 320
