"""Folding: totals, recency, windows, interests, and what is refused."""

from __future__ import annotations

import pytest

from app.core.fold import LAST_MAX
from app.core.ids import RECENT_MAX, WORD_BYTES
from app.core.interest import worth
from app.core.plan import Feature, event_id
from schemas.events import NOTIFICATION_SENT, ORDER_COMPLETED, PRODUCT_VIEWED
from tests.support.plans import DAY, HOUR, MINUTE, count_feature, make_plan
from tests.support.streams import START, USER, Stream, track

VIEWS = count_feature(PRODUCT_VIEWED)
SHOES = count_feature(PRODUCT_VIEWED, 2 * HOUR, where=lambda properties: properties.get("category") == "shoes")
SPENT = Feature("spent", ORDER_COMPLETED, "sum", 30 * DAY, DAY, property_path="cart.total")


@pytest.fixture
def stream() -> Stream:
    return Stream(make_plan(features=[VIEWS, SHOES, SPENT]))


def test_an_event_counts_in_every_window_that_it_matches(stream: Stream) -> None:
    stream.send(track(PRODUCT_VIEWED, START, category="shoes"), track(PRODUCT_VIEWED, START, category="hats"))
    assert stream.row.features[VIEWS.id][0] == 2
    assert stream.row.features[SHOES.id][0] == 1


def test_a_late_event_lands_in_its_own_pane(stream: Stream) -> None:
    stream.send(track(PRODUCT_VIEWED, START), track(PRODUCT_VIEWED, START - 10 * MINUTE))
    pane = START // MINUTE
    assert stream.row.features[VIEWS.id] == [2, pane - 10, 1, pane, 1]


@pytest.mark.parametrize("days", [30, 31])
def test_an_event_older_than_the_window_counts_in_totals_only(stream: Stream, days: int) -> None:
    stream.send(track(ORDER_COMPLETED, START - days * DAY, revenue=5, cart={"total": 5}))
    assert SPENT.id not in stream.row.features
    assert (stream.row.orders, stream.row.revenue_milli) == (1, 5000)


def test_an_event_older_than_the_grace_is_counted_late(stream: Stream) -> None:
    effects = stream.send(track(PRODUCT_VIEWED, START - DAY - 1))
    assert effects.counts["events", "late"] == 1
    assert stream.row.events == 1


def test_a_sum_reads_a_nested_property_in_thousandths(stream: Stream) -> None:
    stream.send(track(ORDER_COMPLETED, START, cart={"total": 12.345}))
    assert stream.row.features[SPENT.id][0] == 12_345


@pytest.mark.parametrize("amount", ["12", True, -1, 1e300, None, [1], {"total": 1}])
def test_an_absurd_amount_is_ignored_and_counted(stream: Stream, amount: object) -> None:
    effects = stream.send(track(ORDER_COMPLETED, START, cart={"total": amount}))
    assert effects.counts[("ignored_values",)] == 1
    assert SPENT.id not in stream.row.features
    assert stream.row.orders == 1


def test_an_absurd_revenue_counts_as_an_order_of_nothing(stream: Stream) -> None:
    stream.send(track(ORDER_COMPLETED, START, revenue=1e8), track(ORDER_COMPLETED, START, revenue="much"))
    assert (stream.row.orders, stream.row.revenue_milli) == (2, 0)


def test_an_event_slightly_in_the_future_happened_now(stream: Stream) -> None:
    stream.send(track(PRODUCT_VIEWED, START + 4 * MINUTE))
    assert stream.row.last[event_id(PRODUCT_VIEWED)] == START
    assert stream.row.features[VIEWS.id][1] == START // MINUTE


def test_recency_is_the_newest_event_time_and_not_the_last_arrival(stream: Stream) -> None:
    stream.send(track(PRODUCT_VIEWED, START), track(PRODUCT_VIEWED, START - HOUR))
    assert stream.row.last[event_id(PRODUCT_VIEWED)] == START
    assert (stream.row.first_ms, stream.row.seen_ms) == (START - HOUR, START)


def test_names_that_the_policy_does_not_know_cannot_push_out_those_that_it_does(stream: Stream) -> None:
    stream.send(track(PRODUCT_VIEWED, START - HOUR))
    stream.send(*[track(f"Chatter {n}", START + n) for n in range(3 * LAST_MAX)])
    assert len(stream.row.last) == LAST_MAX
    assert event_id(PRODUCT_VIEWED) in stream.row.last


def test_a_receipt_is_not_the_users_activity(stream: Stream) -> None:
    stream.send(track(PRODUCT_VIEWED, START - HOUR), track(NOTIFICATION_SENT, START, decisionId="x"))
    assert stream.row.seen_ms == START - HOUR


def test_interests_decay_and_the_least_gives_way(stream: Stream) -> None:
    stream.send(*[track("Seen", START - 30 * DAY, category="old") for _ in range(3)])
    stream.send(*[track("Seen", START, category=f"new{n}") for n in range(8)])
    assert "old" not in stream.row.affinity
    assert len(stream.row.affinity) == 8


def test_interests_do_not_depend_on_the_order_of_arrival() -> None:
    ahead, behind = Stream(make_plan()), Stream(make_plan())
    old, new = track("Seen", START - 14 * DAY, category="a"), track("Seen", START, category="a")
    ahead.send(old, new)
    behind.send(new, old)
    assert ahead.row.affinity == behind.row.affinity
    assert worth(ahead.row.affinity["a"], START) == pytest.approx(1.5, rel=1e-6)


def test_a_repeated_message_changes_nothing(stream: Stream) -> None:
    stream.send(track(PRODUCT_VIEWED, START, message_id="m1"))
    before = stream.row.events
    effects = stream.send(track(PRODUCT_VIEWED, START, message_id="m1"))
    assert effects.counts == {("events", "duplicate"): 1}
    assert not effects.changed
    assert stream.row.events == before


def test_the_memory_of_message_ids_is_bounded(stream: Stream) -> None:
    stream.send(*[track("Seen", START, message_id=f"m{n}") for n in range(RECENT_MAX + 10)])
    assert len(stream.row.recent) == WORD_BYTES * RECENT_MAX


def test_the_users_rows_are_apart(stream: Stream) -> None:
    stream.send(track("Seen", START), track("Seen", START, user="u2"), track("Seen", START))
    assert stream.rows[USER.encode()].events == 2
    assert stream.rows[b"u2"].events == 1
