"""A latency is only as good as its clock and its sample: the schedule is fixed, and what is missing counts."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest

from app.core.profile import decode_profile
from app.policy.load import load_policy
from benchmarks import latency, latency_load
from benchmarks.latency import Reader, figures, headline, quantile
from benchmarks.latency_floor import usual
from benchmarks.latency_load import TRIGGERS, schedule, value
from benchmarks.workload import user_key
from schemas.decisions import Content, Decision, encode_decision
from schemas.events import Event, decode_event
from schemas.topics import DECISIONS


def test_the_schedule_is_fixed_by_its_seed_and_has_the_rate() -> None:
    found = list(schedule(1_000.0, 5.0, users=50, seed=3))
    assert found == list(schedule(1_000.0, 5.0, users=50, seed=3))
    assert len(found) == pytest.approx(5_000, rel=0.05)
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(found))
    assert found[-1].at_s < 5.0
    assert len({due.user for due in found}) == 50


def test_an_event_carries_the_time_it_was_scheduled_for() -> None:
    due = latency_load.Due(0.25, 7, "Order Completed")
    event = decode_event(value(due, 1, 1_700_000_000_000_000, "2"), b"user-0000007")
    assert isinstance(event, Event)
    assert event.properties["scheduled_us"] == "2:1700000000250000"
    assert event.timestamp == 1_700_000_000_250


def test_the_policy_decides_at_the_events_that_count_as_triggers() -> None:
    plan = load_policy(latency.POLICY)
    assert {campaign.trigger.event for campaign in plan.campaigns} == TRIGGERS


def _decision(body: str) -> bytes:
    content = Content(title="t", body=body)
    return encode_decision(
        Decision(id="d", user="u", action="send", campaign="c", category="k", decided_ms=1, content=content)
    )


def test_the_reader_knows_decisions_by_run_and_leaves_out_those_without_a_time() -> None:
    reader = Reader()
    reader.note([_decision("at 0:1000"), _decision("at an unknown time"), _decision("at 1:3000")], 5_000)
    assert dict(reader.seen) == {"0": [(1_000, 5_000)], "1": [(3_000, 5_000)]}


def test_a_quantile_needs_a_sample_that_has_one() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 0.999)) == (50.0, 99.0, None)
    assert quantile([], 0.5) is None


def test_what_was_scheduled_in_the_warm_up_does_not_count_and_what_never_came_does() -> None:
    load = {"from_us": 10_000, "expected": 3, "sender_late_ms_max": 0.5}
    seen = [(9_000, 900_000), (10_000, 12_000), (20_000, 24_000)]
    found = figures(100.0, load, seen, waited_ms=30_000.0)
    assert (found["decisions"], found["missing"]) == (2, 1)
    assert (found["p50_ms"], found["max_ms"]) == (4.0, 30_000.0)


def test_the_headline_is_the_rate_of_the_bar() -> None:
    rates = [{"rate": 100}, {"rate": 5_000}, {"rate": 10_000}]
    assert headline(rates) == {"rate": 5_000}
    assert headline(rates[:1]) == {"rate": 100}


def test_half_and_four_fifths_of_the_greatest_rate_are_added() -> None:
    assert latency.chosen(["--rates", "100", "--max", "1000"]).rates == [100.0, 500.0, 800.0]


def test_the_floor_answers_each_trigger_with_its_own_time_and_with_rows_of_the_workers_core() -> None:
    due = [latency_load.Due(0.5, 1, "Product Added"), latency_load.Due(0.75, 2, "Product Viewed")]
    records = [SimpleNamespace(key=user_key(one.user), value=value(one, one.user, 1_000_000, "floor 3")) for one in due]
    rows, decisions = usual(latency.POLICY).answers(records)
    assert {key: len(decode_profile(row).outbox) for key, row in rows.items()} == {user_key(1): 1, user_key(2): 0}
    assert [(made.topic, made.key) for made in decisions] == [(DECISIONS, user_key(1))]
    reader = Reader()
    reader.note([made.value for made in decisions if made.value], 1_510_000)
    assert reader.seen["floor 3"] == [(1_500_000, 1_510_000)]
