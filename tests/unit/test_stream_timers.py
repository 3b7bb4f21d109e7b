from __future__ import annotations

import random
import tracemalloc

import pytest

from app.core.panes import NEVER_MS
from app.stream.timers import HOUR, LATE_PORTION, TimerIndex

DAY = 86_400_000


def test_a_key_comes_up_once_its_bucket_has_ended() -> None:
    index = TimerIndex(bucket_ms=1000)
    index.add(1500, b"a")  # bucket [1000, 2000)
    assert index.pop_due(1999, 10) == []
    assert index.pop_due(2000, 10) == [b"a"]
    assert index.pop_due(9000, 10) == []


def test_keys_come_up_in_the_order_of_their_buckets() -> None:
    index = TimerIndex(bucket_ms=10)
    for due, key in ((55, b"late"), (5, b"early"), (25, b"middle")):
        index.add(due, key)
    assert [index.pop_due(1000, 1) for _ in range(3)] == [[b"early"], [b"middle"], [b"late"]]


def test_a_limit_leaves_the_rest_for_the_next_time() -> None:
    index = TimerIndex(bucket_ms=10)
    for number in range(100):
        index.add(5, b"%d" % number)
    found = [key for _ in range(4) for key in index.pop_due(1000, 30)]
    assert sorted(found) == sorted(b"%d" % number for number in range(100))
    assert len(index) == 0


def test_the_same_key_in_the_same_bucket_is_one_entry() -> None:
    index = TimerIndex(bucket_ms=1000)
    index.add(100, b"a")
    index.add(200, b"a")
    assert index.pop_due(2000, 10) == [b"a"]
    index.add(1500, b"a")
    index.add(1600, b"a")
    assert len(index) == 1


def test_a_key_that_is_said_again_and_again_for_a_far_hour_takes_no_more_memory() -> None:
    index = TimerIndex()
    for number in range(100_000):
        index.add(DAY + number % 7, b"hot")
    assert len(index) < 1_000
    assert index.pop_due(DAY + 1_000, 10) == [b"hot"]


def test_a_row_that_is_never_due_takes_no_memory() -> None:
    index = TimerIndex()
    index.add(NEVER_MS, b"a")
    assert len(index) == 0


def test_a_bucket_that_was_emptied_can_be_filled_again() -> None:
    index = TimerIndex(bucket_ms=10)
    index.add(5, b"a")
    assert index.pop_due(100, 10) == [b"a"]
    index.add(5, b"b")
    assert index.pop_due(100, 10) == [b"b"]


def test_far_entries_take_less_than_30_bytes_more_than_their_keys() -> None:
    keys = [b"%d" % number for number in range(50_000)]
    tracemalloc.start()
    index = TimerIndex()
    for number, key in enumerate(keys):
        index.add(DAY + number * 31 * DAY // len(keys), key)
    index.pop_due(DAY, 10)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == len(keys)
    assert held / len(keys) < 30 + 5


def test_a_look_never_divides_more_than_its_portion_and_loses_nothing() -> None:
    index = TimerIndex()
    for number in range(3 * LATE_PORTION):
        index.add(30_000, b"%d" % number)
    looks = [len(index.pop_due(40_000, 1_000_000)) for _ in range(5)]
    assert looks == [LATE_PORTION] * 3 + [0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_looked_at_once_it_is_due_whatever_its_due_time_did_before(seed: int) -> None:
    rng = random.Random(seed)
    index = TimerIndex()
    now_ms = 1_700_000_000_000
    due: dict[bytes, int] = {}
    entered: dict[bytes, set[int]] = {}
    fired = 0
    for number in range(4_000):
        if number % 3 == 0:
            now_ms += rng.choice((50, 900, 61_000, HOUR * 700, 5 * HOUR * 1000 if number % 40 == 0 else 1))
        for _ in range(rng.randrange(4)):
            key = b"%d" % rng.randrange(300) * rng.choice((1, 1, 1, 120))
            at_ms = now_ms + rng.choice((0, 500, 2_000, 70_000, 3_000_000, HOUR * 1000, DAY, 9 * DAY)) - 1_000
            if at_ms < due.get(key, NEVER_MS):
                index.add(at_ms, key)
                entered.setdefault(key, set()).add(at_ms)
            due[key] = at_ms
        for key in index.pop_due(now_ms, 10_000):
            assert min(entered[key]) <= now_ms, "before its time"
            if key in due and due[key] > now_ms:
                index.add(due[key], key)
                entered[key].add(due[key])
            else:
                fired += due.pop(key, 0) > 0
        assert all(at_ms // 1000 * 1000 + 1000 > now_ms for at_ms in due.values())
    assert fired > 1_000
    assert len(index) >= len(due)


def test_rows_of_a_restore_are_found_as_if_they_had_been_added_one_by_one() -> None:
    rng = random.Random(3)
    due = [(rng.randrange(3 * DAY), b"k" * rng.choice((3, 300)) + b"%d" % number) for number in range(5_000)]
    single, whole = TimerIndex(), TimerIndex()
    for due_ms, key in due:
        single.add(due_ms, key)
    for start in range(0, len(due), 700):
        whole.add_distinct(due[start : start + 700])
    assert len(whole) == len(single) == 5_000
    for now_ms in range(0, 3 * DAY + 1_001, DAY // 8):
        assert sorted(whole.pop_due(now_ms, 10_000)) == sorted(single.pop_due(now_ms, 10_000))
    assert len(whole) == 0


def test_rows_that_come_while_an_hour_is_divided_are_found_too() -> None:
    index = TimerIndex()
    index.add_distinct([(DAY, b"far")])
    index.pop_due(0, 10)
    index.add_distinct([(1_500, b"near"), (2 * DAY, b"farther")])
    assert index.pop_due(3_000, 10) == [b"near"]
    assert sorted(index.pop_due(3 * DAY, 10)) == [b"far", b"farther"]
