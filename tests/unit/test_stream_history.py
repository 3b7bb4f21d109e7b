"""A partition that is read again: what is still there, in order, and never beyond what may be read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from app.stream.history import HistoryReader


class Log:
    """A partition with these offsets, up to `end`; stands for the consumer. `stable`: where a transaction is open."""

    def __init__(self, offsets: Sequence[int], end: int, stable: int | None = None) -> None:
        self.records = [SimpleNamespace(offset=offset, timestamp=1_000 + offset) for offset in offsets]
        self.end, self.stable = end, end if stable is None else stable
        self.at = 0
        self.told = False
        self.settings: dict[str, Any] = {}
        self.stopped = False

    def __call__(self, **settings: Any) -> Log:
        self.settings = settings
        return self

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, partitions: Sequence[Any]) -> None:
        (self.tp,) = partitions

    async def seek_to_beginning(self, tp: Any) -> None:
        self.at = min((record.offset for record in self.records), default=self.end)

    def seek(self, tp: Any, offset: int) -> None:
        self.at = offset

    async def position(self, tp: Any) -> int:
        return self.at

    def highwater(self, tp: Any) -> int | None:
        return self.end if self.told else None

    def last_stable_offset(self, tp: Any) -> int | None:
        return self.stable if self.told else None

    async def getmany(self, tp: Any, *, timeout_ms: int, max_records: int) -> dict[Any, list[Any]]:
        await asyncio.sleep(0)
        found = [record for record in self.records if self.at <= record.offset < self.stable][:max_records]
        more = [record for record in self.records if found and found[-1].offset < record.offset < self.stable]
        self.at = more[0].offset if more else max(self.at, self.stable)  # gaps are passed by, as by aiokafka
        self.told = True
        return {tp: found} if found else {}


async def read(log: Log, to: int) -> tuple[list[int], HistoryReader]:
    async with asyncio.timeout(10), HistoryReader({}, "events", 3, connect=log) as reader:
        found = [record.offset async for records in reader.read_to(to) for record in records]
    return found, reader


async def test_all_before_an_offset_is_given_in_order_and_gaps_are_no_end() -> None:
    log = Log([4, 5, 9, 10, 11], end=12)
    found, reader = await read(log, 11)
    assert found == [4, 5, 9, 10]
    assert (reader.first, reader.next_offset) == ((4, 1_004), 11)
    assert log.at == 11, "what lies beyond belongs to the next call"
    assert log.stopped


async def test_more_records_than_a_fetch_brings_come_some_at_a_time_and_the_next_call_goes_on() -> None:
    log = Log(range(2_000), end=2_000)
    async with asyncio.timeout(10), HistoryReader({}, "events", 3, connect=log) as reader:
        portions = [len(records) async for records in reader.read_to(1_500)]
        assert (sum(portions), max(portions) < 1_000, reader.next_offset) == (1_500, True, 1_500)
        assert [record.offset async for records in reader.read_to(1_502) for record in records] == [1_500, 1_501]


async def test_what_retention_or_compaction_has_left_nothing_of_is_read_at_once() -> None:
    found, reader = await read(Log([], end=40), 40)
    assert (found, reader.first, reader.next_offset) == ([], None, 40)


async def test_what_stands_at_an_offset_is_told_or_that_nothing_does() -> None:
    async with asyncio.timeout(10), HistoryReader({}, "events", 3, connect=Log([4, 9], end=12, stable=11)) as reader:
        assert await reader.peek() == (4, 1_004)
        assert (await reader.at(9)).offset == 9
        assert await reader.at(5) is None, "compacted away"
        assert await reader.at(11) is None, "of a transaction that is open"


async def test_it_reads_what_is_committed_and_belongs_to_no_group() -> None:
    log = Log([1], end=2)
    await read(log, 2)
    assert (log.settings["isolation_level"], log.settings["enable_auto_commit"]) == ("read_committed", False)
    assert "group_id" not in log.settings
