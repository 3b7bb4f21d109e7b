from __future__ import annotations

from app.core.panes import NEVER_MS
from app.stream.timers import TimerIndex


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
    assert len(index) == 1


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
