from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.stream.fence import CLAIM_KEY, claim_headers, row_headers
from app.stream.restore import BULK_RECORDS, restore_partitions
from app.stream.store import PartitionStore, StoreDamaged
from app.stream.stores import StoreFactory, StoreOptions

MANY = BULK_RECORDS + 3_000


class Log:
    """One partition's log; stands for the consumer, which reads `fetch_records` of them at a time."""

    def __init__(self, records: list[Any], end: int, *, fetch_records: int = 4_000) -> None:
        self.records = records
        self.end = end
        self.fetches_left = 1_000
        self._fetch_records = fetch_records
        self._position = 0
        self._looked = False

    def __call__(self, **settings: Any) -> Log:
        return self

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, partitions: Iterable[Any]) -> None:
        (self._tp,) = partitions
        self._looked = False

    def seek(self, tp: Any, offset: int) -> None:
        self._position = offset

    async def position(self, tp: Any) -> int:
        return self._position

    def highwater(self, tp: Any) -> int | None:
        return self.end if self._looked else None

    async def getmany(self, *partitions: Any, timeout_ms: int = 0) -> dict[Any, list[Any]]:
        self._looked = True
        self.fetches_left -= 1
        found = [record for record in self.records if record.offset >= self._position][: self._fetch_records]
        self._position = found[-1].offset + 1 if found else self.end
        return {self._tp: found} if found else {}


def record(offset: int, key: bytes, value: bytes | None, epoch: int = 1) -> Any:
    return SimpleNamespace(offset=offset, key=key, value=value, headers=row_headers(epoch) if epoch else [])


def compacted(number: int) -> tuple[Log, dict[bytes, bytes]]:
    """A log with gaps, rewritten keys and tombstones, and the rows that it comes to."""
    records, rows = [], {}
    for n in range(number):
        key = b"k%06d" % (n * 7919 % (number * 3 // 4))
        value = None if n % 11 == 0 else b"v%d" % n
        records.append(record(2 * n + n % 2, key, value))
        rows[key] = value
    return Log(records, 2 * number + 5), {key: value for key, value in rows.items() if value is not None}


def content(store: PartitionStore) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    store.scan(found.update)
    return found


async def restored(log: Log, store: PartitionStore, *, interrupted: Any = lambda: False) -> dict[int, int] | None:
    return await restore_partitions({}, "t", {0: store}, connect=log, interrupted=interrupted, stall_s=5.0)


@pytest.mark.parametrize("number", [1_000, MANY])
async def test_a_store_has_the_newest_value_of_every_key_and_their_number(tmp_path: Path, number: int) -> None:
    log, rows = compacted(number)
    store = StoreFactory(tmp_path).open("t", 0)
    assert await restored(log, store) == {0: number}
    assert content(store) == rows
    assert (len(store), store.next_offset, store.epoch) == (len(rows), log.records[-1].offset + 1, 1)


def killed_within_a_spill(folder: Path, log: Log, written: int) -> PartitionStore:
    """A store that had `written` of the log's records, and RocksDB the rows of half of them: the newest."""
    first = StoreFactory(folder).open("t", 0)
    rows = {one.key: one.value for one in log.records[:written]}
    first.write(rows.items(), added=sum(map(bool, rows.values())), next_offset=log.records[written - 1].offset + 1)
    first._spill_oldest(first.memory.dirty_bytes // 2)
    first._db.close()
    found = StoreFactory(folder).open("t", 0)
    assert (found.next_offset, 0 < len(found) < written) == (0, True)
    return found


@pytest.mark.parametrize("number", [1_000, MANY])
async def test_rows_that_are_newer_than_their_store_s_position_are_read_again(tmp_path: Path, number: int) -> None:
    log, rows = compacted(number)
    store = killed_within_a_spill(tmp_path, log, 400)
    assert await restored(log, store) == {0: number}
    assert content(store) == rows
    assert (len(store), store.next_offset) == (len(rows), log.records[-1].offset + 1)


async def test_rows_that_reach_beyond_the_end_of_the_log_are_another_log_s(tmp_path: Path) -> None:
    log, _rows = compacted(1_000)
    store = killed_within_a_spill(tmp_path, log, 400)
    log.end = store.reach - 1
    log.records = log.records[:399]
    with pytest.raises(StoreDamaged, match=f"at changelog offset {store.reach}, but .* ends at {log.end}"):
        await restored(log, store)


async def test_only_an_empty_store_that_many_records_follow_is_filled_without_looking(tmp_path: Path) -> None:
    log, rows = compacted(MANY)
    factory = StoreFactory(tmp_path)
    empty, few, filled = (factory.open("t", partition) for partition in range(3))
    filled.write([(b"k", b"v")], added=1, next_offset=1)
    await restored(log, empty)
    await restored(compacted(1_000)[0], few)
    await restored(log, filled)
    assert [store.counted for store in (empty, few, filled)] == [False, True, True]
    content(empty)
    assert (empty.counted, len(empty)) == (True, len(rows))


async def test_a_restore_that_a_kill_tore_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log, rows = compacted(MANY)
    factory = StoreFactory(tmp_path)
    store = factory.open("t", 0)
    log.fetches_left = 3
    assert await restored(log, store, interrupted=lambda: log.fetches_left <= 0) is None
    store.flush()
    half = store.next_offset
    log.fetches_left = 1
    assert await restored(log, store, interrupted=lambda: log.fetches_left <= 0) is None
    store._db.close()  # without a flush of ours, as a kill leaves it
    again = factory.open("t", 0)
    assert not again.counted
    assert half <= again.next_offset < log.end - 5
    log.fetches_left = 1_000
    await restored(log, again)
    assert content(again) == rows
    again.close()
    whole = factory.open("t", 0)
    assert (whole.counted, len(whole)) == (True, len(rows))
    whole._db.delete(next(iter(rows)))
    with pytest.raises(StoreDamaged, match="but the store says"):
        content(whole)


async def test_rows_of_a_deposed_owner_are_void_in_bulk_too(tmp_path: Path) -> None:
    claim = SimpleNamespace(offset=MANY, key=CLAIM_KEY, value=None, headers=claim_headers(2, b"B"))
    records = [record(n, b"k%d" % n, b"1") for n in range(MANY)] + [claim, record(MANY + 1, b"k0", b"late")]
    store = StoreFactory(tmp_path).open("t", 0)
    await restored(Log(records, MANY + 2), store)
    assert content(store)[b"k0"] == b"1"
    assert (len(store), store.epoch) == (MANY, 2)


async def test_a_store_that_was_written_while_uncounted_is_counted_whole(tmp_path: Path) -> None:
    log, rows = compacted(MANY)
    store = StoreFactory(tmp_path).open("t", 0)
    await restored(log, store)
    store.write([(b"new", b"row")], added=1, next_offset=store.next_offset + 1)
    assert content(store) == rows | {b"new": b"row"}
    assert len(store) == len(rows) + 1


async def test_a_store_is_read_while_it_is_filled_in_bulk_and_is_as_any_other_after_that(tmp_path: Path) -> None:
    log, rows = compacted(MANY)
    factory = StoreFactory(tmp_path)
    store = factory.open("t", 0)
    await restored(log, store)
    some = sorted(rows)[::100]
    assert store.get_many(some) == [rows[key] for key in some]
    content(store)
    store.end_bulk()
    store.restore([(some[0], None), (some[1], b"newer")], next_offset=log.end)
    rows[some[1]] = b"newer"
    del rows[some[0]]
    assert (content(store), len(store)) == (rows, len(rows))
    store.close()
    again = factory.open("t", 0)
    assert (again.next_offset, content(again)) == (log.end, rows)


def options_in_force(store: PartitionStore) -> str:
    newest: Path = max(store.path.glob("OPTIONS-*"))
    return newest.read_text()


def test_a_store_that_exists_is_opened_with_our_options_and_not_with_those_it_was_made_with(tmp_path: Path) -> None:
    factory = StoreFactory(tmp_path)
    store = factory.open("t", 0)
    store.begin_bulk()
    assert "disable_auto_compactions=true" in options_in_force(store)
    assert "memtable_factory={id=VectorRepFactory" in options_in_force(store)
    store.end_bulk()
    assert "disable_auto_compactions=false" in options_in_force(store)
    store.close()
    larger = StoreFactory(tmp_path, StoreOptions(memtable_bytes=3 << 20)).open("t", 0)
    assert f"write_buffer_size={3 << 20}\n" in options_in_force(larger)


async def test_a_disk_that_refuses_is_told_from_a_damaged_store(tmp_path: Path) -> None:
    log, _rows = compacted(MANY)
    store = StoreFactory(tmp_path).open("t", 0)
    await restored(log, store)
    store._db.close()
    with pytest.raises(OSError, match=f"cannot write to {store.path}"):
        store.end_bulk()


async def test_a_store_that_was_counted_before_an_interruption_goes_on_as_any_other(tmp_path: Path) -> None:
    log, rows = compacted(MANY)
    store = StoreFactory(tmp_path).open("t", 0)
    await restored(log, store)
    content(store)  # counted; then another partition's scan is interrupted
    assert store._bulk
    store.restore([(b"new", b"row")], next_offset=log.end)
    assert not store._bulk
    assert (content(store), len(store)) == (rows | {b"new": b"row"}, len(rows) + 1)
