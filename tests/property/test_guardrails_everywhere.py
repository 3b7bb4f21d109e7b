"""Quiet hours in every zone of the IANA data on the nights that change the clock; caps whatever the clock and order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.index import CLOCK_BACK_MS
from app.core.local_time import quiet_until
from app.core.plan import Cap, QuietHours
from tests.property.test_core_guardrails import CAMPAIGNS, CAPS, is_quiet, most_in_any_window
from tests.support.plans import DAY, HOUR, MINUTE, make_plan
from tests.support.streams import Stream, track

NIGHT = QuietHours(22 * 60, 8 * 60)
SMALL_HOURS = QuietHours(1 * 60 + 30, 2 * 60 + 45)


def changes(zone: ZoneInfo, year: int) -> Iterator[datetime]:
    """The hours of a year in which the zone's offset changes, in UTC."""
    day = datetime(year, 1, 1, tzinfo=UTC)
    while day.year == year:
        after = day + timedelta(days=1)
        if day.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            hours = (day + timedelta(hours=hour) for hour in range(24))
            yield next(
                at
                for at in hours
                if at.astimezone(zone).utcoffset() != (at + timedelta(hours=1)).astimezone(zone).utcoffset()
            )
        day = after


@pytest.mark.parametrize("quiet", [NIGHT, SMALL_HOURS])
def test_quiet_hours_end_right_in_every_zone_on_every_night_that_changes_the_clock(quiet: QuietHours) -> None:
    nights = 0
    for name in sorted(available_timezones()):
        for change in changes(ZoneInfo(name), 2026):
            nights += 1
            for minutes in (-600, -61, -1, 0, 29, 31, 59, 61, 121, 300):
                now_ms = int(change.timestamp() * 1000) + minutes * MINUTE
                end_ms = quiet_until(name, "UTC", now_ms, quiet)
                assert (end_ms is not None) is is_quiet(now_ms, name, quiet), (name, now_ms)
                if end_ms is not None:
                    assert is_quiet(end_ms - 1, name, quiet), (name, now_ms)
                    assert not is_quiet(end_ms, name, quiet), (name, now_ms)
    assert nights > 100


steps = st.lists(
    st.tuples(
        st.integers(-3 * HOUR, 8 * HOUR),
        st.lists(
            st.tuples(st.sampled_from(["Promo", "News", "Paid"]), st.sampled_from("abc"), st.integers(0, 2 * HOUR)),
            min_size=1,
            max_size=5,
        ),
    ),
    max_size=15,
)


BACK = [(0, [("Promo", "b", 0), ("News", "b", 0)]), (HOUR, [("Promo", "a", 0)]), (-1, [("News", "b", 0)])]
WEEKLY = (*CAPS, Cap(5, 7 * DAY))


@settings(max_examples=120)
@example(BACK)
@given(steps)
def test_no_cap_is_exceeded_with_users_interleaved_late_events_and_a_clock_that_steps_back(
    batches: list[tuple[int, list[tuple[str, str, int]]]],
) -> None:
    stream = Stream(make_plan(campaigns=CAMPAIGNS, caps=WEEKLY))
    newest_ms = stream.now_ms
    for advance, events in batches:
        stream.now_ms = max(stream.now_ms + advance, newest_ms - CLOCK_BACK_MS)
        newest_ms = max(newest_ms, stream.now_ms)
        stream.send(*(track(name, stream.now_ms - age, user=user) for name, user, age in events))
        stream.fire()
    for cap in WEEKLY:
        for user in "abc":
            times = [
                one.decided_ms
                for one in stream.sends
                if one.user == user and not one.transactional and cap.category in ("", one.category)
            ]
            assert most_in_any_window(times, cap.window_ms) <= cap.limit


@pytest.mark.parametrize("window_ms", [HOUR, 7 * DAY, 30 * DAY])
@pytest.mark.parametrize("back_ms", [1, HOUR, CLOCK_BACK_MS])
def test_a_cap_that_has_ended_binds_again_when_the_clock_steps_back(window_ms: int, back_ms: int) -> None:
    stream = Stream(make_plan(campaigns=CAMPAIGNS, caps=(Cap(1, window_ms, "promo"),)))
    for name, advance in (("Promo", 0), ("News", window_ms), ("Promo", -back_ms), ("Promo", back_ms)):
        stream.now_ms += advance  # with the news the row forgets what no cap asks for any more
        stream.send(track(name, stream.now_ms))
    first, second = [one.decided_ms for one in stream.sends if one.category == "promo"]
    assert second - first == window_ms
