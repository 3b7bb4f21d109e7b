from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.stream import table as table_module
from app.stream.store import STEPS_MAX, PartitionStore, StoreDamaged
from app.stream.stores import StoreFactory, StoreOptions
from app.stream.table import Spilling
from tests.support.engine import BareTable, FakeApp


async def test_a_spill_lets_others_have_their_turn_and_ends_when_the_partition_is_given_up(tmp_path: Path) -> None:
    table = BareTable(FakeApp(), StoreFactory(tmp_path, StoreOptions(dirty_bytes=16_000)))
    table._keep(0, table._open(0))
    store = table.stores[0]
    store.write([(b"%02d" % n, b"x" * 700) for n in range(10)], added=10, next_offset=10)
    spilling = asyncio.create_task(table.spill(0))
    left = []
    while len(left) < 3:
        await asyncio.sleep(0)
        left.append(len(store.memory._dirty))
    assert 10 > left[0] > left[1] > left[2] > 0
    store._db.close()  # refuses what its closing would spill
    table.close_partition(0)
    await spilling
    await table.spill(0)
    assert store.memory.is_dirty


async def test_each_partition_has_its_turn_over_which_the_steps_of_its_spill_are_spread() -> None:
    asked: list[tuple[int, float]] = []
    enough = asyncio.Event()

    class Table:
        stores: ClassVar[dict[int, None]] = {0: None, 1: None}

        async def spill(self, partition: int, pause_s: float) -> None:
            asked.append((partition, pause_s))
            if len(asked) == 4:
                enough.set()

    spilling = Spilling(Table(), every_s=2 * STEPS_MAX * 0.001)  # type: ignore[arg-type]
    spilling.start()
    await asyncio.wait_for(enough.wait(), 10.0)
    await spilling.stop()
    assert asked[:4] == [(0, 0.001), (1, 0.001)] * 2


class Restores:
    """Stands for the changelog: each call answers with the next of `answers`."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self._claimed: list[Any] = []
        """After an answer that is not an interruption the claim is read."""

    async def __call__(
        self, settings: Mapping[str, Any], topic: str, stores: Mapping[int, PartitionStore], **hooks: Any
    ) -> dict[int, int] | None:
        if self._claimed:
            answer = self._claimed.pop()
            for fence in hooks["fences"].values():
                fence.epoch, fence.owner = fence.epoch + 1, b"me"
            return answer  # type: ignore[no-any-return]
        answer = self._answers.pop(0)
        if isinstance(answer, int):
            raise StoreDamaged("damaged", stores[answer].path)
        for partition, records in (answer or {}).items():
            if records:
                stores[partition].restore([(b"k%d" % n, b"v") for n in range(records)], next_offset=records)
        if answer is not None:
            self._claimed.append(dict.fromkeys(answer, 0))
        return answer  # type: ignore[no-any-return]


class Scans:
    """What a table's client was shown."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.rows: list[tuple[int, bytes]] = []

    async def restore(
        self, table: BareTable, partitions: set[int], interrupted: Callable[[], bool] = lambda: False
    ) -> bool:
        self.begun, self.rows = [], []
        return await table.restore(
            partitions,
            {},
            interrupted=interrupted,
            on_remaining=lambda remaining: None,
            begin_scan=self.begun.append,
            visit=lambda partition, rows: self.rows.extend((partition, key) for key, _value in rows),
        )


@pytest.fixture
def table(tmp_path: Path) -> BareTable:
    return BareTable(FakeApp(), StoreFactory(tmp_path))


def answer(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
    monkeypatch.setattr(table_module, "restore_partitions", Restores(*answers))


async def test_a_partition_is_shown_when_it_is_opened_and_when_its_rows_changed(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = Scans()
    answer(monkeypatch, {0: 2, 1: 0}, {0: 0, 1: 0}, {0: 0, 1: 1})
    assert await scans.restore(table, {0, 1})
    assert (scans.begun, scans.rows) == ([0, 1], [(0, b"k0"), (0, b"k1")])
    assert await scans.restore(table, {0, 1})
    assert scans.begun == []
    assert await scans.restore(table, {0, 1})
    assert scans.begun == [1]


async def test_what_an_interrupted_restore_left_unseen_is_shown_by_the_next(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = Scans()
    answer(monkeypatch, None, {0: 0})
    assert not await scans.restore(table, {0})
    assert scans.begun == []
    assert await scans.restore(table, {0})
    assert scans.begun == [0]


async def test_a_damaged_store_is_rebuilt_and_shown_anew(table: BareTable, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = Scans()
    answer(monkeypatch, {0: 3}, 0, {0: 3})
    assert await scans.restore(table, {0})
    assert await scans.restore(table, {0})
    assert (scans.begun, len(scans.rows)) == ([0], 3)


async def test_a_partition_that_was_given_up_is_shown_again_when_it_comes_back(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = Scans()
    answer(monkeypatch, {0: 1}, {}, {0: 0})
    assert await scans.restore(table, {0})
    assert await scans.restore(table, set())
    assert await scans.restore(table, {0})
    assert (scans.begun, scans.rows) == ([0], [(0, b"k0")])


async def test_a_scan_of_many_rows_lets_others_run_and_stops_for_a_rebalance(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = Scans()
    answer(monkeypatch, {0: 5_000}, {0: 0}, {0: 0})
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: turns.append(len(scans.rows)))
    assert not await scans.restore(table, {0}, interrupted=lambda: bool(turns))
    assert 0 < len(scans.rows) < 5_000
    assert await scans.restore(table, {0})
    assert (scans.begun, len(scans.rows)) == ([0], 5_000)


async def test_a_store_that_is_closed_in_the_middle_of_its_scan_is_not_taken_for_damaged(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = Scans()
    answer(monkeypatch, {0: 5_000})

    def closed() -> bool:
        if scans.rows:
            table.close_partition(0)
        return False

    assert not await scans.restore(table, {0}, interrupted=closed)
    assert 0 < len(scans.rows) < 5_000
    answer(monkeypatch, {0: 0})
    assert await scans.restore(table, {0})
    assert len(scans.rows) == 5_000


async def test_rows_stand_in_the_changelog_in_the_order_in_which_they_were_written(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, {0: 0})
    assert await Scans().restore(table, {0})
    producer = table.app.durable_producer
    producer.full = full = asyncio.Event()
    first = asyncio.create_task(table.write(0, [(b"a", b"reserved")]))
    await asyncio.sleep(0)
    second = asyncio.create_task(table.write(0, [(b"a", b"sent")]))
    await asyncio.sleep(0)
    full.set()
    await asyncio.gather(first, second)
    assert [value for _, _, value in producer.changelog] == [b"reserved", b"sent"]
    assert table.get_many(0, [b"a"]) == [b"sent"]
    assert len(table.stores[0]) == 1


async def test_what_is_acknowledged_after_its_partition_was_given_up_does_not_reach_the_next_store(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, {0: 0}, {0: 0})
    assert await Scans().restore(table, {0})
    producer = table.app.durable_producer
    producer.hold = {"changelog"}
    late = asyncio.create_task(table.write(0, [(b"a", b"old")]))
    await asyncio.sleep(0)
    assert producer.held
    table.close_partition(0)
    assert await Scans().restore(table, {0})
    table.stores[0].write([(b"a", b"new")], added=1, next_offset=9)
    producer.release("changelog")
    await late
    assert table.get_many(0, [b"a"]) == [b"new"]
    assert table.stores[0].next_offset == 9


async def test_a_store_that_is_damaged_again_right_after_it_was_rebuilt_is_not_rebuilt_for_ever(
    table: BareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, 0, 0)
    with pytest.raises(StoreDamaged):
        await Scans().restore(table, {0})
