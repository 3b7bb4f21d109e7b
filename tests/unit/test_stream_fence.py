from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from app.stream.fence import CLAIM_KEY, Fence, claim_headers, row_headers
from app.stream.store import _META_BEFORE_EPOCHS, _META_KEY, StoreFactory
from tests.support.engine import BareTable, FakeApp


def claim(epoch: int, owner: bytes) -> Any:
    return SimpleNamespace(key=CLAIM_KEY, value=None, headers=claim_headers(epoch, owner))


def row(key: bytes, value: bytes, epoch: int) -> Any:
    return SimpleNamespace(key=key, value=value, headers=row_headers(epoch) if epoch else [])


def test_rows_from_before_there_were_epochs_count_until_the_first_claim() -> None:
    fence = Fence()
    rows = fence.admit([row(b"ann", b"1", 0), claim(1, b"A"), row(b"ann", b"2", 0)])
    assert rows == [(b"ann", b"1")]


def test_a_deposed_owners_row_is_void_and_its_key_is_remembered() -> None:
    fence = Fence()
    rows = fence.admit([claim(1, b"A"), claim(2, b"B"), row(b"ann", b"new", 2), row(b"ann", b"old", 1)])
    assert rows == [(b"ann", b"new")]
    assert fence.void == {b"ann"}


def test_a_key_that_its_owner_writes_after_the_void_record_needs_no_repair() -> None:
    fence = Fence()
    fence.admit([claim(2, b"B"), row(b"ann", b"old", 1), row(b"ann", b"new", 2)])
    assert fence.void == set()


def test_of_two_claims_with_one_epoch_the_first_counts() -> None:
    fence = Fence()
    fence.admit([claim(1, b"A"), claim(2, b"B"), claim(2, b"late")])
    assert (fence.epoch, fence.owner) == (2, b"B")


def test_an_epoch_whose_claim_was_compacted_away_is_known_by_its_rows() -> None:
    fence = Fence()
    assert fence.admit([row(b"ann", b"1", 5), row(b"bob", b"2", 4)]) == [(b"ann", b"1")]
    assert fence.epoch == 5


def test_a_store_remembers_the_epoch_and_reads_positions_from_before_there_were_any(tmp_path: Path) -> None:
    factory = StoreFactory(tmp_path)
    store = factory.open("t", 0)
    store.write([(b"a", b"1")], added=1, next_offset=3, epoch=7)
    store.write([(b"a", b"2")], added=0, next_offset=4)
    store.close()
    again = factory.open("t", 0)
    assert (again.next_offset, len(again), again.epoch) == (4, 1, 7)
    again._db[_META_KEY] = _META_BEFORE_EPOCHS.pack(9, 1)
    again.close()
    old = factory.open("t", 0)
    assert (old.next_offset, len(old), old.epoch) == (9, 1, 0)


async def test_a_store_keeps_its_position_when_records_of_others_stand_before_its_rows(tmp_path: Path) -> None:
    app = FakeApp()
    table = BareTable(app, StoreFactory(tmp_path))
    table.stores[0] = table.factory.open("profiles", 0)
    await table.write(0, [(b"ann", b"1")])
    assert table.stores[0].next_offset == 1
    app.durable_producer.changelog.append((0, b"bob", b"of another worker"))
    await table.write(0, [(b"ann", b"2")])
    assert table.stores[0].next_offset == 1
    assert table.stores[0].get_many([b"ann"]) == [b"2"]


class Log:
    """Reads a partition from memory, as the restore's consumer."""

    records: ClassVar[list[Any]] = []

    def __init__(self, **_settings: Any) -> None:
        self.at = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, _partitions: Any) -> None: ...

    def seek(self, _tp: Any, offset: int) -> None:
        self.at = offset

    async def position(self, _tp: Any) -> int:
        return self.at

    def highwater(self, _tp: Any) -> int:
        return len(self.records)

    async def getmany(self, tp: Any, timeout_ms: int) -> dict[Any, list[Any]]:
        found, self.at = self.records[self.at :], len(self.records)
        return {tp: found}


async def test_a_row_behind_a_void_record_is_written_again_at_the_owners_next_write(tmp_path: Path) -> None:
    app = FakeApp()
    app.client_settings = {}
    table = BareTable(app, StoreFactory(tmp_path))
    table.connect = Log
    table.stores[0] = table.factory.open("profiles", 0)
    table._fences[0] = Fence(2)
    await table.write(0, [(b"ann", b"ours"), (b"bob", b"his")])
    app.durable_producer.changelog.append((0, b"ann", b"of a deposed owner"))
    writers = [(b"ann", 2), (b"bob", 2), (b"ann", 1), (b"bob", 2)]
    Log.records = [
        SimpleNamespace(key=key, value=b"", offset=at, headers=row_headers(epoch))
        for at, (key, epoch) in enumerate(writers)
    ]
    await table.write(0, [(b"bob", b"new")])
    await asyncio.wait_for(table._mending[0], 5)
    assert app.durable_producer.changelog[4:] == [(0, b"ann", b"ours")]
    await table.write(0, [(b"bob", b"newer")])
    assert table._mending == {}, "nothing stands between ours any more"


async def test_rows_whose_owner_was_deposed_do_not_reach_the_store(tmp_path: Path) -> None:
    class Deposed(Exception):
        pass

    class App(FakeApp):
        async def confirm_lease(self) -> None:
            raise Deposed

    table = BareTable(App(), StoreFactory(tmp_path))
    table.stores[0] = table.factory.open("profiles", 0)
    pending = await table.begin_write(0, {b"ann": b"1"}, added=1)
    try:
        await table.commit_write(pending)
    except Deposed:
        assert table.stores[0].get_many([b"ann"]) == [None]
    else:
        raise AssertionError("the lease was not asked")
