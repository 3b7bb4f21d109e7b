"""Distinct counts, sequences and sessions: what they count, when the clock changes them, and their bounds."""

from __future__ import annotations

import itertools
import random

import pytest

from app.core import marks
from app.core.expression_errors import ExpressionErrors
from app.core.expressions import compile_expression
from app.core.panes import NEVER_MS
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from app.policy.load import load_policy_text
from schemas.events import Event, encode_event
from tests.support.plans import FixedScorer, campaign_only
from tests.support.streams import FakeRecord

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 1_700_000_123_456


def fold(text: str, *happened: tuple[str, int, dict[str, object]], now_ms: int = NOW) -> tuple[Profile, object]:
    """The row that the engine makes of events (name, ms before `NOW`, properties) under a policy of one segment."""
    policy = f"version: '1'\nname: t\nsegments:\n  - name: s\n    when: {text!r}\n"
    plan = load_policy_text(policy)
    rows: dict[bytes, Profile] = {}
    processor = Processor(plan, FixedScorer(), campaign_only)
    for offset, (name, age_ms, properties) in enumerate(happened):
        event = Event(type="track", event=name, user_id="u", message_id=str(offset), timestamp=NOW - age_ms,
                      properties=properties)  # fmt: skip
        source = FakeRecord(b"u", encode_event(event), offset)
        effects = processor.process([source], "events", 0, rows, now_ms=now_ms, acked_offset=0)
        assert effects.counts["events", "applied"] + effects.counts["events", "late"] == 1
    return rows[b"u"], plan.segments[0]


def holds(text: str, *happened: tuple[str, int, dict[str, object]], now_ms: int = NOW) -> bool:
    row, _ = fold(text, *happened)
    return compile_expression(text).evaluate(decode_profile(encode_profile(row)), now_ms, "u")


def view(product: object, age_ms: int = 0) -> tuple[str, int, dict[str, object]]:
    return "Product Viewed", age_ms, {"product_id": product, "price": 5}


def test_distinct_counts_each_value_once() -> None:
    seen = [view("a"), view("b"), view("a", HOUR), view(7), view(7.0), view(True), view(None), view(["a"])]
    assert holds('distinct("Product Viewed.product_id", "24h") == 3', *seen)
    assert not holds('distinct("Product Viewed.product_id", "24h") >= 4', *seen)
    assert holds('distinct("Product Viewed.product_id", "24h", where=price > 9) == 0', *seen)


def test_a_value_leaves_the_window_with_its_newest_occurrence() -> None:
    text = 'distinct("Product Viewed.product_id", "24h") >= 2'
    row, _ = fold(text, view("a", 20 * HOUR), view("b", 3 * HOUR), view("a", 1 * HOUR))
    expression = compile_expression(text)
    due_ms = expression.next_change(row, NOW, "u")
    assert due_ms == (NOW - 3 * HOUR) // HOUR * HOUR + 24 * HOUR
    assert expression.evaluate(row, due_ms - 1, "u")
    assert not expression.evaluate(row, due_ms, "u")


def test_the_order_of_arrival_does_not_change_a_distinct_count() -> None:
    seen = [(value, pane) for value in range(6) for pane in (1, 4, 9)]
    states = []
    for seed in range(20):
        random.Random(seed).shuffle(seen)
        state: list[int] = []
        for value, pane in seen:
            marks.add_distinct(state, value, pane, current=10, size=8)
        states.append(state)
    assert all(state == states[0] for state in states)
    assert marks.distinct(states[0], 10, 8) == 6


def test_a_row_keeps_a_bounded_number_of_values_and_a_policy_cannot_ask_for_more() -> None:
    state: list[int] = []
    for value in range(1000):
        marks.add_distinct(state, value, 5, current=5, size=3)
    assert marks.distinct(state, 5, 3) == marks.DISTINCT_MAX
    with pytest.raises(ExpressionErrors, match="tells 64 different values apart"):
        compile_expression('distinct("Product Viewed.product_id", "24h") > 64')


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("A", 30), ("B", 10)], True),
        ([("B", 10), ("A", 30)], True),  # whatever arrives first
        ([("A", 50), ("B", 10)], False),  # more than half an hour after
        ([("A", 10), ("B", 30)], False),  # before
        ([("A", 50), ("A", 20), ("B", 10)], True),
        ([("B", 10)], False),
        ([("A", 10)], False),
    ],
)
def test_a_sequence_is_the_second_soon_after_the_first(events: list[tuple[str, int]], expected: bool) -> None:
    happened = [(name, age * MINUTE, {}) for name, age in events]
    assert holds('followed_by("A", "B", "30m")', *happened) is expected


def test_an_event_follows_itself_when_it_happens_twice() -> None:
    assert holds('followed_by("A", "A", "30m")', ("A", 20 * MINUTE, {}), ("A", 10 * MINUTE, {}))
    assert not holds('followed_by("A", "A", "30m")', ("A", 10 * MINUTE, {}))


def test_a_sequence_ends_by_the_clock_when_its_newest_end_is_old_enough() -> None:
    text = 'followed_by("A", "B", "30m", "6h")'
    row, _ = fold(text, ("A", 3 * HOUR, {}), ("B", 3 * HOUR - MINUTE, {}), ("A", 2 * HOUR, {}), ("B", 1 * HOUR, {}))
    expression = compile_expression(text)
    assert expression.next_change(row, NOW, "u") == NOW + 3 * HOUR + MINUTE
    assert expression.evaluate(row, NOW + 3 * HOUR + MINUTE - 1, "u")
    assert not expression.evaluate(row, NOW + 3 * HOUR + MINUTE, "u")
    assert expression.next_change(row, NOW + 3 * HOUR + MINUTE, "u") == NEVER_MS


def test_a_pause_of_half_an_hour_begins_a_session() -> None:
    visits = [("Page", age * MINUTE, {}) for age in (200, 190, 150, 149, 20, 5)]
    assert holds('sessions("24h") == 3', *visits)
    assert holds("session_events() == 2 and session_minutes() == 15", *visits)
    assert holds('session_events("Cart") == 1', *visits, ("Cart", 1 * MINUTE, {}))
    assert holds('session_events("Cart") == 0', ("Cart", 90 * MINUTE, {}), *visits[-2:])


def test_a_session_is_over_half_an_hour_after_its_newest_event() -> None:
    text = "session_events() >= 2"
    row, _ = fold(text, ("Page", 12 * MINUTE, {}), ("Page", 10 * MINUTE, {}))
    expression = compile_expression(text)
    due_ms = expression.next_change(row, NOW, "u")
    assert due_ms == NOW + 20 * MINUTE
    assert expression.evaluate(row, due_ms - 1, "u")
    assert not expression.evaluate(row, due_ms, "u")


def test_what_the_sender_writes_is_no_part_of_a_session() -> None:
    assert holds('sessions("24h") == 1 and session_events() == 1', ("Page", 9, {}), ("Notification Sent", 5, {}))


def test_a_late_event_joins_the_session_that_it_touches_and_no_other() -> None:
    assert holds("session_events() == 3", ("A", 9 * MINUTE, {}), ("A", 5 * MINUTE, {}), ("A", 20 * MINUTE, {}))
    assert holds("session_events() == 2", ("A", 9 * MINUTE, {}), ("A", 5 * MINUTE, {}), ("A", 3 * HOUR, {}))


def test_the_state_of_a_sequence_is_bounded() -> None:
    state: list[int] = []
    for at_ms in itertools.chain(range(0, 1000, 2), range(1, 1000, 2)):
        marks.add_time(state, at_ms)
    assert state == list(range(1000 - marks.TIMES_MAX, 1000))
