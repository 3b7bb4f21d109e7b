"""How what a fetch brought is cut into portions."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from app.stream.batch import RecordBatch, portions


def batch(partition: int, records: int, begun: list[int] | None = None, *, ours: bool = True) -> RecordBatch:
    def begin(batch: RecordBatch) -> bool:
        if begun is not None:
            begun.append(batch.partition)
        return ours

    made = [SimpleNamespace(offset=offset) for offset in range(records)]
    return RecordBatch("events", partition, made, 1, begin, lambda _batch: None)


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        ([3], [[(0, 3, True)]]),
        ([10], [[(0, 10, True)]]),
        ([11], [[(0, 10, False)], [(0, 1, True)]]),
        ([20], [[(0, 10, False)], [(0, 10, True)]]),
        ([3, 4, 3], [[(0, 3, True), (1, 4, True), (2, 3, True)]]),
        ([3, 4, 4], [[(0, 3, True), (1, 4, True)], [(2, 4, True)]]),
        ([3, 25, 2], [[(0, 3, True)], [(1, 10, False)], [(1, 10, False)], [(1, 5, True), (2, 2, True)]]),
        ([], []),
    ],
)
def test_small_batches_go_together_and_large_ones_in_parts(
    sizes: Sequence[int], cut: list[list[tuple[int, int, bool]]]
) -> None:
    found = list(portions([batch(n, size) for n, size in enumerate(sizes)], 10))
    assert [[(one.batch.partition, len(one.records), one.last) for one in together] for together in found] == cut


def test_the_parts_of_a_batch_are_all_of_its_records_in_order() -> None:
    found = [record.offset for together in portions([batch(0, 34)], 10) for one in together for record in one.records]
    assert found == list(range(34))


def test_a_batch_is_begun_when_its_turn_comes() -> None:
    begun: list[int] = []
    cutting = portions([batch(0, 8, begun), batch(1, 8, begun)], 10)
    next(cutting)
    assert begun == [0]
    next(cutting)
    assert begun == [0, 1]


def test_what_may_not_be_begun_is_left_out() -> None:
    found = list(portions([batch(0, 30, ours=False), batch(1, 3), batch(2, 3, ours=False)], 10))
    assert [[one.batch.partition for one in together] for together in found] == [[1]]
