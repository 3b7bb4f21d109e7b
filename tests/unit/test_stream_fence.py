from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from app.stream.fence import CLAIM_KEY, Fence, claim_headers, row_headers
from app.stream.store import _META_KEY
from app.stream.stores import StoreFactory
from tests.support.engine import BareTable, Died, FakeApp


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


@pytest.mark.parametrize(("form", "epoch"), [(">qq", ()), (">qqq", (5,))])
def test_a_store_remembers_the_epoch_and_reads_what_older_ones_have_noted(
    tmp_path: Path, form: str, epoch: tuple[int, ...]
) -> None:
    factory = StoreFactory(tmp_path)
    store = factory.open("t", 0)
    store.write([(b"a", b"1")], added=1, next_offset=3, epoch=7)
    store.write([(b"a", b"2")], added=0, next_offset=4)
    store.close()
    again = factory.open("t", 0)
    assert (again.next_offset, len(again), again.epoch) == (4, 1, 7)
    again._db[_META_KEY] = struct.pack(form, 9, 1, *epoch)
    again.close()
    old = factory.open("t", 0)
    assert (old.next_offset, len(old), old.epoch, old.reach) == (9, 1, sum(epoch), 9)


class Log:
    """Reads a partition from memory, as the restore's consumer."""

    records: ClassVar[list[Any]] = []
    started: ClassVar[int] = 0

    def __init__(self, **_settings: Any) -> None:
        self.at = 0

    async def start(self) -> None:
        Log.started += 1

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


class Site:
    """A table that owns partition 0 with epoch 2, and the changelog as a consumer reads it."""

    def __init__(self, path: Path) -> None:
        self.app = FakeApp()
        self.app.client_settings = {}
        self.table = BareTable(self.app, StoreFactory(path))
        self.table.connect = Log
        self.table.stores[0] = self.table.factory.open("profiles", 0)
        self.table.fences[0] = Fence(2)
        Log.records = []

    def arrives(self, record: Any) -> None:
        """Another worker's record stands in the changelog."""
        self.app.durable_producer.changelog.append((0, record.key, record.value))
        self._append(record)

    async def write(self, *rows: tuple[bytes, bytes]) -> None:
        """The records stand in the changelog before they are acknowledged."""
        for key, value in rows:
            self._append(row(key, value, 2))
        await self.table.write(0, list(rows))

    async def mended(self) -> None:
        """What was begun has ended; what it wrote stands in the changelog."""
        for task in list(self.table._standing.mending):
            await asyncio.wait_for(task, 5)
        for _, key, value in self.app.durable_producer.changelog[len(Log.records) :]:
            self._append(row(key, value or b"", 2))

    def _append(self, record: Any) -> None:
        record.offset = len(Log.records)
        Log.records = [*Log.records, record]

    @property
    def changelog(self) -> list[Any]:
        return self.app.durable_producer.changelog

    @property
    def position(self) -> int:
        return self.table.stores[0].next_offset


async def test_a_row_behind_a_void_record_is_written_again_at_the_owners_next_write(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.write((b"ann", b"ours"), (b"bob", b"his"))
    assert site.position == 2
    site.arrives(row(b"ann", b"of a deposed owner", 1))
    await site.write((b"bob", b"new"))
    await site.mended()
    assert site.changelog[4:] == [(0, b"ann", b"ours")]
    assert site.position == 2, "the next restore reads the void record"
    await site.write((b"bob", b"newer"))
    assert not site.table._standing.mending, "nothing stands between ours any more"


async def test_a_row_behind_a_void_record_is_written_again_though_its_owner_has_nothing_to_write(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    await site.write((b"ann", b"ours"), (b"bob", b"his"))
    site.arrives(row(b"ann", b"of a deposed owner", 1))
    await site.table._standing.look()
    await site.mended()
    assert site.changelog[3:] == [(0, b"ann", b"ours")]
    await site.table._standing.look()
    assert not site.table._standing.mending, "once is enough"


async def test_who_gives_its_partitions_up_does_not_look(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.arrives(row(b"ann", b"of a deposed owner", 1))
    site.app.batches.flow_active = False
    await site.table._standing.look()
    assert not site.table._standing.mending


@pytest.mark.parametrize("late", [row(b"ann", b"ours", 2), claim(2, b"late")])
async def test_what_stands_between_our_rows_and_takes_nothing_from_us_is_passed_over(tmp_path: Path, late: Any) -> None:
    """A batch that was appended twice because its acknowledgement was lost; a claim that came second."""
    site = Site(tmp_path)
    await site.write((b"ann", b"ours"))
    site.arrives(late)
    await site.write((b"bob", b"his"))
    assert (site.position, site.app.died) == (3, [])
    assert site.table.stores[0].get_many([b"bob"]) == [b"his"]


@pytest.mark.parametrize(
    "others", [[claim(3, b"B")], [claim(3, b"B"), row(b"ann", b"theirs", 3)], [row(b"ann", b"", 3)]]
)
async def test_a_row_behind_the_claim_of_another_ends_the_process_before_it_counts(
    tmp_path: Path, others: list[Any]
) -> None:
    site = Site(tmp_path)
    await site.write((b"ann", b"1"))
    for record in others:
        site.arrives(record)
    with pytest.raises(Died):
        await site.write((b"ann", b"2"))
    assert site.table.stores[0].page(b"", 9) == [(b"ann", b"1")]
    assert site.position == 1


async def test_a_changelog_that_has_lost_its_end_is_noticed_at_the_next_write(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.write((b"ann", b"1"), (b"bob", b"1"))
    await site.write((b"cid", b"1"))
    site.changelog.pop()  # a broker that was behind became the leader
    Log.records = Log.records[:-1]
    with pytest.raises(Died):
        await site.write((b"ann", b"2"))
    assert "changelog[0] has lost its end" in site.app.died[-1]
    assert site.position == 3, "the next start finds the changelog shorter than the store, and says so"


async def test_rows_that_were_read_already_are_not_read_again(tmp_path: Path) -> None:
    """Batches overlap: when the first is looked after, the second may stand in the changelog as well."""
    site = Site(tmp_path)
    site.arrives(claim(2, b"late"))
    site.app.durable_producer.hold.add("changelog")
    first, second = [asyncio.create_task(site.write((key, b"1"))) for key in (b"ann", b"bob")]
    await asyncio.sleep(0)
    site.app.durable_producer.release("changelog")
    reads = Log.started
    await first
    await second
    assert (site.position, Log.started - reads) == (3, 1)


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
        assert table.stores[0].page(b"", 9) == []
    else:
        raise AssertionError("the lease was not asked")
