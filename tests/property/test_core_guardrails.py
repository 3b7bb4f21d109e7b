"""Caps, cool-downs and quiet hours hold for any stream, in any order, in any zone, on any night."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.campaign import Campaign, SendTime, Trigger
from app.core.local_time import quiet_until
from app.core.panes import NEVER_MS
from app.core.plan import AdaptiveCaps, Cap, QuietHours
from app.core.weariness import memory_ms, tightened
from schemas.events import NOTIFICATION_DISMISSED, NOTIFICATION_OPENED, NOTIFICATION_SENT
from tests.support.plans import DAY, HOUR, MINUTE, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track

ZONES = (
    "UTC",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Europe/Dublin",  # negative daylight saving in winter
    "Africa/Casablanca",
    "Antarctica/Troll",  # two hours of daylight saving
)
CAPS = (Cap(2, HOUR), Cap(4, DAY), Cap(1, 3 * HOUR, "promo"))
CAMPAIGNS = (
    campaign("promo", on_event("Promo"), "promo"),
    campaign("news", on_event("News"), "news", cool_down_ms=30 * MINUTE),
    campaign("again", Trigger("absence", event="Promo", wait_ms=20 * MINUTE), "news"),
    campaign("paid", on_event("Paid"), "service", transactional=True),
)
TIMED = (*CAMPAIGNS, campaign("timed", on_event("News"), "promo", send_time=SendTime(12 * HOUR, 0.5), expires_ms=DAY))


def run(stream: Stream, steps: list[tuple[int, list[str]]], zone: str = "UTC") -> None:
    """Send each step's events as one batch after its advance of the clock, firing timers when they are due."""
    due = NEVER_MS
    for advance, names in [*steps, (2 * DAY, [])]:
        until = stream.now_ms + advance
        while due <= until:
            stream.now_ms = max(due, stream.now_ms)
            due = min((at_ms for at_ms, _ in stream.fire().due), default=NEVER_MS)
        stream.now_ms = until
        context = {"timezone": zone}
        if names:
            effects = stream.send(*[track(name, until, context=context) for name in names])
            due = min([due, *(at_ms for at_ms, _ in effects.due)])


steps_of = st.lists(
    st.tuples(
        st.one_of(st.integers(0, HOUR), st.integers(0, 12 * HOUR), st.sampled_from([HOUR, HOUR - 1, 3 * HOUR, DAY])),
        st.lists(st.sampled_from(["Promo", "News", "Paid"]), min_size=1, max_size=4),
    ),
    max_size=20,
)


def most_in_any_window(times: list[int], window_ms: int) -> int:
    """The largest number of instants in any half-open window of that length."""
    return max((sum(start <= at_ms < start + window_ms for at_ms in times) for start in times), default=0)


@settings(max_examples=150)
@given(steps_of)
def test_no_cap_is_ever_exceeded(steps: list[tuple[int, list[str]]]) -> None:
    stream = Stream(make_plan(campaigns=CAMPAIGNS, caps=CAPS))
    run(stream, steps)
    promotional = [decision for decision in stream.sends if not decision.transactional]
    for cap in CAPS:
        times = [one.decided_ms for one in promotional if not cap.category or one.category == cap.category]
        assert most_in_any_window(times, cap.window_ms) <= cap.limit


@settings(max_examples=100)
@given(steps_of)
def test_a_cool_down_is_kept_and_transactional_messages_always_go(steps: list[tuple[int, list[str]]]) -> None:
    stream = Stream(make_plan(campaigns=CAMPAIGNS, caps=CAPS))
    run(stream, steps)
    news = [one.decided_ms for one in stream.sends if one.campaign == "news"]
    assert all(later - earlier >= 30 * MINUTE for earlier, later in itertools.pairwise(news))
    paid = sum(names.count("Paid") for _, names in steps)
    assert sum(one.campaign == "paid" for one in stream.sends) == paid


ANSWERS = (NOTIFICATION_SENT, NOTIFICATION_OPENED, NOTIFICATION_DISMISSED)
answers_of = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(ANSWERS), st.integers(0, 2 * HOUR)), max_size=30)


@settings(max_examples=150)
@given(
    steps_of, answers_of, st.sampled_from([0.05, 0.2, 0.7, 1.0]), st.floats(0, 60), st.sampled_from([HOUR, 30 * DAY])
)
def test_no_cap_is_ever_exceeded_however_tired_or_fond_the_user_is(
    steps: list[tuple[int, list[str]]],
    answers: list[tuple[int, str, int]],
    floor: float,
    weariness: float,
    half_life_ms: int,
) -> None:
    adaptive = AdaptiveCaps(floor, half_life_ms)
    plan = make_plan(campaigns=TIMED, caps=CAPS, adaptive=adaptive, label_horizon_ms=HOUR)
    stream = Stream(plan)
    stream.send(track("Seen", START))
    stream.row.weariness, stream.row.weariness_ms = weariness, START
    for at, step in enumerate(steps):
        run(stream, [step])
        for _, name, delay_ms in [one for one in answers if one[0] % max(len(steps), 1) == at]:
            if stream.sends:
                stream.send(track(name, stream.now_ms - delay_ms, decisionId=stream.sends[-1].id))
    promotional = [decision for decision in stream.sends if not decision.transactional]
    for cap in CAPS:
        times = [one.decided_ms for one in promotional if not cap.category or one.category == cap.category]
        assert most_in_any_window(times, cap.window_ms) <= cap.limit


@settings(max_examples=300)
@given(st.integers(1, 200), st.integers(HOUR, 90 * DAY), st.floats(0.01, 1.0))
def test_a_tightened_cap_is_no_looser_than_its_share(limit: int, window_ms: int, share: float) -> None:
    sends, tight_ms = tightened(limit, window_ms, share)
    assert 1 <= sends <= limit
    assert sends / tight_ms <= limit / window_ms * (1 + 1e-6)
    assert sends / tight_ms == pytest.approx(limit * share / window_ms, rel=1e-3)
    assert tight_ms <= max(window_ms, memory_ms([(limit, window_ms)], AdaptiveCaps(share, DAY)))


def is_quiet(at_ms: int, zone: str, quiet: QuietHours) -> bool:
    """By the calendar, with no arithmetic of ours."""
    local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    minute = local.hour * 60 + local.minute
    if quiet.start_minute <= quiet.end_minute:
        return quiet.start_minute <= minute < quiet.end_minute
    return minute >= quiet.start_minute or minute < quiet.end_minute


zones = st.sampled_from(ZONES)
instants = st.one_of(
    st.integers(1_100_000_000_000, 1_900_000_000_000),
    # nights of changes: New York and Dublin 2026 (March, October, November), Lord Howe (April, October)
    st.builds(
        lambda day, ms: int(datetime(*day, tzinfo=UTC).timestamp() * 1000) + ms,
        st.sampled_from([(2026, 3, 7), (2026, 3, 28), (2026, 4, 4), (2026, 10, 3), (2026, 10, 24), (2026, 10, 31)]),
        st.integers(0, 2 * DAY),
    ),
)
windows = st.builds(QuietHours, st.integers(0, 1439), st.integers(0, 1439))


@settings(max_examples=400)
@given(zones, instants, windows)
@example("America/New_York", 1_772_953_200_000, QuietHours(22 * 60, 2 * 60 + 30))
def test_the_end_of_quiet_hours_is_the_first_instant_that_is_not_quiet(
    zone: str, now_ms: int, quiet: QuietHours
) -> None:
    end_ms = quiet_until(zone, "UTC", now_ms, quiet)
    if end_ms is None:
        assert not is_quiet(now_ms, zone, quiet)
        return
    assert now_ms < end_ms <= now_ms + 2 * DAY
    assert not is_quiet(end_ms, zone, quiet)
    assert is_quiet(end_ms - 1, zone, quiet)
    assert all(is_quiet(at_ms, zone, quiet) for at_ms in range(now_ms, end_ms, 5 * MINUTE))


@settings(max_examples=150)
@given(zones, instants, steps_of, st.sampled_from(["defer", "drop"]))
def test_nothing_is_sent_in_quiet_hours(zone: str, start_ms: int, steps: list[tuple[int, list[str]]], how: str) -> None:
    quiet = QuietHours(21 * 60, 9 * 60)
    parts: tuple[Campaign, ...] = tuple(
        campaign(one.name, one.trigger, one.category, quiet_hours=how, expires_ms=DAY, send_time=one.send_time)
        for one in TIMED
    )
    stream = Stream(make_plan(campaigns=parts, quiet_hours=quiet), now_ms=start_ms)
    run(stream, steps, zone)
    assert not [one for one in stream.sends if is_quiet(one.decided_ms, zone, quiet)]
    if how == "defer" and steps:
        assert stream.sends, "what is deferred is decided in the morning"


def test_the_helper_finds_a_crowded_window() -> None:
    assert most_in_any_window([START, START + 1, START + 10], 10) == 2
