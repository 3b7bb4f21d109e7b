"""Local time and quiet hours on ordinary nights and on those when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.local_time import hour_of_week, instant_ms, quiet_until, utc_offset_ms
from app.core.plan import QuietHours
from schemas.events import epoch_ms

NIGHT = QuietHours(22 * 60, 8 * 60)


def at(zone: str, *clock: int, fold: int = 0) -> int:
    """Milliseconds since 1970 of a time on the wall."""
    return int(datetime(*clock, fold=fold, tzinfo=ZoneInfo(zone)).timestamp() * 1000)  # type: ignore[misc, arg-type]


def until(zone: str, now_ms: int, quiet: QuietHours = NIGHT) -> int | None:
    return quiet_until(zone, "UTC", now_ms, quiet)


@pytest.mark.parametrize(
    ("clock", "end"),
    [
        ((2026, 1, 5, 22, 0), (2026, 1, 6, 8, 0)),
        ((2026, 1, 5, 3, 30), (2026, 1, 5, 8, 0)),
        ((2026, 1, 5, 21, 59), None),
        ((2026, 1, 5, 8, 0), None),
    ],
)
def test_the_window_reaches_over_midnight(clock: tuple[int, ...], end: tuple[int, ...] | None) -> None:
    expected = None if end is None else at("America/New_York", *end)
    assert until("America/New_York", at("America/New_York", *clock)) == expected


# New York, 2026-03-08: 01:59 is followed by 03:00. 2026-11-01: 01:59 is followed by 01:00.
def test_the_night_that_loses_an_hour_ends_by_the_clock_on_the_wall() -> None:
    now = at("America/New_York", 2026, 3, 7, 23, 0)
    assert until("America/New_York", now) == at("America/New_York", 2026, 3, 8, 8, 0) == now + 8 * 3_600_000


def test_the_night_that_gains_an_hour_ends_by_the_clock_on_the_wall() -> None:
    now = at("America/New_York", 2026, 10, 31, 23, 0)
    assert until("America/New_York", now) == at("America/New_York", 2026, 11, 1, 8, 0) == now + 10 * 3_600_000


def test_a_window_that_ends_in_the_lost_hour_ends_when_the_clock_jumps() -> None:
    quiet = QuietHours(22 * 60, 2 * 60 + 30)
    now = at("America/New_York", 2026, 3, 8, 1, 0)
    assert until("America/New_York", now, quiet) == at("America/New_York", 2026, 3, 8, 3, 0)


def test_a_window_in_the_repeated_hour_is_quiet_again() -> None:
    quiet = QuietHours(60, 90)
    first = at("America/New_York", 2026, 11, 1, 1, 10)
    assert until("America/New_York", first, quiet) == at("America/New_York", 2026, 11, 1, 1, 30)
    again = at("America/New_York", 2026, 11, 1, 1, 10, fold=1)
    assert again - first == 3_600_000
    assert until("America/New_York", again, quiet) == at("America/New_York", 2026, 11, 1, 1, 30, fold=1)


def test_an_unknown_zone_is_the_default_zone() -> None:
    now = at("Asia/Tokyo", 2026, 1, 5, 23, 0)
    assert quiet_until("Mars/Olympus", "Asia/Tokyo", now, NIGHT) == at("Asia/Tokyo", 2026, 1, 6, 8, 0)
    assert quiet_until("../../etc/passwd", "Asia/Tokyo", now, NIGHT) is not None
    assert utc_offset_ms("", "also wrong", now) == 0


def test_no_window_is_never_quiet() -> None:
    assert all(until("UTC", hour * 3_600_000, QuietHours(480, 480)) is None for hour in range(24))


def test_the_hour_of_the_week_is_local() -> None:
    monday_9_utc = int(datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp() * 1000)
    assert hour_of_week("UTC", "UTC", monday_9_utc) == 9
    assert hour_of_week("America/Los_Angeles", "UTC", monday_9_utc) == 1
    assert hour_of_week("Pacific/Honolulu", "UTC", monday_9_utc) == 167, "Sunday 23:00"


@given(st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=45))])))
def test_an_instant_is_the_same_by_whole_numbers(time: datetime) -> None:
    assert instant_ms(time) == epoch_ms(time)
