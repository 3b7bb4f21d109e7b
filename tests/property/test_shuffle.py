"""A stream that is shuffled within the grace ends in the same rows; what comes later counts, and counts as late."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.profile import Profile
from schemas.events import ORDER_COMPLETED, PRODUCT_VIEWED
from tests.support.oracle import state_of
from tests.support.plans import DAY, HOUR, at_least, campaign, count_feature, make_plan, on_event
from tests.support.streams import START, Stream, track

USERS = 5
GRACE_MS = DAY
VIEWS = count_feature(PRODUCT_VIEWED, 3 * DAY, HOUR)
ORDERS = count_feature(ORDER_COMPLETED, 30 * DAY, DAY)
PLAN = make_plan(
    [at_least(VIEWS, 3, "keen"), at_least(ORDERS, 1, "buyer")],
    [VIEWS, ORDERS],
    [campaign("thanks", on_event(ORDER_COMPLETED), category="orders")],
)
# By the order in which ids and positions were met, which is no part of what is promised.
ORDER_OF_ARRIVAL = ("recent", "segments")


def stream_of(rng: random.Random, ages_ms: list[int]) -> list[dict[str, Any]]:
    """An event of each age, each with an id."""
    return [
        track(
            rng.choice((PRODUCT_VIEWED, ORDER_COMPLETED)), START - age, f"u{rng.randrange(USERS)}",
            message_id=f"m{number}", revenue=rng.randrange(100), category=rng.choice(("a", "b")),
        )
        for number, age in enumerate(ages_ms)
    ]  # fmt: skip


def folded(events: list[dict[str, Any]], batches: int) -> tuple[dict[bytes, dict[str, Any]], Counter[Any]]:
    """Rows and counts after the events, in so many batches at one instant."""
    stream, counts = Stream(PLAN), Counter[Any]()
    for at in range(batches):
        counts.update(stream.send(*events[at::batches]).counts)
    return {key: comparable(row) for key, row in stream.rows.items()}, counts


def comparable(row: Profile) -> dict[str, Any]:
    state = state_of(row)
    state["entered"] = sorted(row.segments)
    # Each of a category's events rounds its level to a second, and so may leave another one in another order.
    state["affinity"] = {name: pytest.approx(level, abs=row.events) for name, level in row.affinity.items()}
    return {name: value for name, value in state.items() if name not in ORDER_OF_ARRIVAL}


@settings(max_examples=50)
@given(
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, GRACE_MS), min_size=1, max_size=60),
    st.lists(st.integers(GRACE_MS + 1, 20 * DAY), max_size=20),
    st.integers(1, 8),
)
def test_a_shuffled_stream_ends_in_the_same_rows_and_what_is_later_is_counted_late(
    rng: random.Random, ages_ms: list[int], late_ms: list[int], batches: int
) -> None:
    in_order = stream_of(rng, sorted(ages_ms + late_ms, reverse=True))
    shuffled = rng.sample(in_order, len(in_order))
    rows, counts = folded(in_order, 1)
    other_rows, other_counts = folded(shuffled, batches)
    assert other_rows == rows
    for found in (counts, other_counts):
        assert found["events", "late"] == len(late_ms)
        assert found["events", "applied"] == len(ages_ms)
    assert sum(row["events"] for row in rows.values()) == len(in_order), "what is late is counted all the same"
