"""Scheduled campaigns: at the right time on the user's own clock, once, whatever the clocks and the worker do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest

from app.core.cron import cron_problem, next_at_ms
from app.core.history import Windows
from app.core.plan import Plan
from app.core.processor import make_index
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from tests.support.streams import START, USER, Stream, track

HOUR = 3_600_000
DAY = 24 * HOUR


# They change at midnight, by half an hour, for Ramadan, the other way round, or not at all.
ZONES = (
    "America/Havana",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Europe/Dublin",
    "Pacific/Apia",
)


def utc_ms(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


def plan(cron: str = "30 18 * * fri", spread: str = "", version: int = 1) -> Plan:
    return load_policy_text(f"""
version: {version}
name: shop
defaults: {{consent: assumed}}
campaigns:
  - name: weekend
    category: promo
    expires: 2h
    trigger: {{schedule: {{cron: "{cron}"{spread and f", spread: {spread}"}}}}}
    audience: did("Product Viewed")
    template: {{title: T, body: B}}
""")


def seen(stream: Stream, zone: str, user: str = USER) -> None:
    stream.send(track("Product Viewed", stream.now_ms, user, context={"timezone": zone}))


def hours_to(*when: int) -> int:
    return (utc_ms(*when) - START) // HOUR * HOUR


def test_it_comes_on_the_users_own_clock_and_again_a_week_later_across_a_change_of_clocks() -> None:
    stream = Stream(plan())
    seen(stream, "America/New_York")
    for hour in range(24 * 14):
        stream.at(hour * HOUR).fire()
    times = [datetime.fromtimestamp(made.decided_ms / 1000, UTC) for made in stream.sends]
    local = [at.astimezone(ZoneInfo("America/New_York")) for at in times]
    assert [at.strftime("%a %H") for at in local] == ["Fri 19", "Fri 19"], "looked at on the full hour"
    assert times[1] - times[0] == timedelta(days=7, hours=-1)


def test_a_time_that_was_missed_by_more_than_its_worth_is_not_made_up_for() -> None:
    stream = Stream(plan())
    seen(stream, "UTC")
    stream.at(hours_to(2026, 3, 6, 23)).fire()
    assert stream.reasons == ["expired"]
    stream.at(hours_to(2026, 3, 13, 19)).fire()
    assert len(stream.sends) == 1


def test_a_user_who_has_moved_is_met_on_the_new_clock_only() -> None:
    stream = Stream(plan())
    seen(stream, "Asia/Tokyo")
    stream.at(HOUR)
    seen(stream, "America/New_York")
    stream.at(hours_to(2026, 3, 6, 10)).fire()
    assert stream.sends == []
    stream.at(hours_to(2026, 3, 7, 0)).fire()
    assert len(stream.sends) == 1


def test_a_new_schedule_reaches_a_user_without_an_event_and_replaces_the_old_one() -> None:
    stream = Stream(load_policy_text("version: 0\nname: shop\n"))
    seen(stream, "UTC")
    for version, cron in ((1, "30 18 * * fri"), (2, "30 18 * * sat")):
        stream.processor.switch(make_index(plan(cron, version=version)))
        stream.processor.sweep([USER.encode()], stream.rows, Windows(), now_ms=stream.now_ms, mark=1, acked_offset=0)
    (timer,) = stream.row.timers
    assert timer.due_ms == utc_ms(2026, 3, 7, 18, 30)


def test_a_spread_keeps_users_apart_and_each_at_a_time_of_its_own() -> None:
    stream = Stream(plan(spread="1h"))
    for number in range(40):
        seen(stream, "UTC", f"u{number}")
    due = {key: row.timers[0].due_ms - utc_ms(2026, 3, 6, 18, 30) for key, row in stream.rows.items()}
    assert all(0 <= offset < HOUR for offset in due.values())
    assert len(set(due.values())) > 30
    stream.at(hours_to(2026, 3, 6, 20)).fire()
    again = {key: row.timers[0].due_ms - utc_ms(2026, 3, 13, 18, 30) for key, row in stream.rows.items()}
    assert again == due


@pytest.mark.parametrize("cron", ["* * * * *", "61 1 * * *", "0 0 30 2 *", "R 3 * * *", "@daily", "0 9 * *", ""])
def test_a_line_that_cannot_be_kept_is_a_mistake_at_its_place(cron: str) -> None:
    assert cron_problem(cron)
    with pytest.raises(PolicyErrors, match=r"campaigns\[0\].trigger.schedule.cron"):
        plan(cron)


def test_a_daily_line_comes_once_on_every_day_of_every_zone() -> None:
    assert set(ZONES) <= available_timezones()
    for zone in ZONES:
        for line in ("30 2 * * *", "0 0 * * *"):
            at_ms, days = utc_ms(2026, 1, 1), set[date]()
            previous = None
            while at_ms < utc_ms(2026, 12, 31):
                at_ms = next_at_ms(line, zone, "UTC", at_ms)
                local = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
                day = local.date()
                assert day not in days, (zone, line, local)
                assert previous is None or day == previous + timedelta(days=1), (zone, line, local)
                days.add(day)
                previous = day


def test_a_time_that_is_skipped_comes_later_and_one_that_is_shown_twice_comes_first() -> None:
    zone = "America/New_York"
    assert next_at_ms("30 2 * * *", zone, "UTC", utc_ms(2026, 3, 8, 5)) == utc_ms(2026, 3, 8, 7, 30)
    assert next_at_ms("30 1 * * *", zone, "UTC", utc_ms(2026, 11, 1, 4)) == utc_ms(2026, 11, 1, 5, 30)
    assert next_at_ms("30 1 * * *", zone, "UTC", utc_ms(2026, 11, 1, 5, 30)) == utc_ms(2026, 11, 2, 6, 30)
    assert next_at_ms("0 1 * * *", "Nowhere/Else", "Europe/Paris", utc_ms(2026, 1, 1)) == utc_ms(2026, 1, 2)
