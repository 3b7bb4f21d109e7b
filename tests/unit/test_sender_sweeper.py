"""The ledger of a sender that runs for months: what is past its retention goes, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from app.sender.sweeper import Row, Sweeper
from app.sender.worker import LedgerPages
from app.stream.barrier import Barrier
from tables.ledger import RETENTION_MS, LedgerEntry, State, encode_entry, index_row, is_entry, mark_key

NOW_MS = 1_700_000_000_000
OLD_MS = NOW_MS - RETENTION_MS - 1


def entry(at_ms: int) -> bytes:
    return encode_entry(LedgerEntry(State.SENT, offset=0, at_ms=at_ms))


class FakeLedger:
    """Rows by partition; `pending` are those that have not reached the store."""

    def __init__(self, stored: dict[int, dict[bytes, bytes]]) -> None:
        self.stored = stored
        self.pending: dict[bytes, bytes] = {}

    def partitions(self) -> Sequence[int]:
        return list(self.stored)

    def page(self, partition: int, after: bytes, limit: int) -> list[bytes]:
        return [key for key in sorted(self.stored[partition]) if key > after][:limit]

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.pending.get(key, self.stored[partition].get(key)) for key in keys]

    async def write(self, partition: int, rows: list[Row]) -> None:
        for key, value in rows:
            assert value is None
            del self.stored[partition][key]


def sweeper(ledger: FakeLedger, page_rows: int = 10) -> Sweeper:
    def failed(what: str, exc: BaseException) -> None:
        raise AssertionError(what) from exc

    return Sweeper(ledger, lambda: NOW_MS, failed, page_rows=page_rows)


@pytest.mark.parametrize("page_rows", [1, 3, 100])
async def test_a_round_forgets_what_is_past_its_retention_and_nothing_else(page_rows: int) -> None:
    ledger = FakeLedger({p: {b"%d-%02d" % (p, n): entry(OLD_MS + n % 2 * 2) for n in range(10)} for p in (0, 3)})
    walker = sweeper(ledger, page_rows)
    forgotten = [await walker.step() for _ in range(2 * (10 // page_rows + 1))]
    assert sum(forgotten) == 10
    assert all(len(rows) == 5 for rows in ledger.stored.values())
    assert sum([await walker.step() for _ in range(30)]) == 0


async def test_an_entry_that_was_just_reserved_again_stays() -> None:
    ledger = FakeLedger({0: {b"a": entry(OLD_MS)}})
    ledger.pending[b"a"] = entry(NOW_MS)
    assert await sweeper(ledger).step() == 0


async def test_marks_and_index_rows_have_retentions_of_their_own() -> None:
    index = index_row(b"subject", b"a", OLD_MS)  # a day longer, so that no entry is left without
    ledger = FakeLedger({0: dict([index, (mark_key(b"subject"), entry(OLD_MS)), (b"a", entry(OLD_MS))])})
    assert await sweeper(ledger).step() == 1
    assert [key for key in ledger.stored[0] if is_entry(key)] == []
    assert len(ledger.stored[0]) == 2


async def test_a_partition_that_was_given_up_is_left_in_the_middle() -> None:
    ledger = FakeLedger({0: {b"%d" % n: entry(NOW_MS) for n in range(9)}, 1: {b"x": entry(OLD_MS)}})
    walker = sweeper(ledger, 2)
    await walker.step()
    del ledger.stored[0]
    assert await walker.step() == 1
    ledger.stored.clear()
    assert await walker.step() == 0


async def test_partitions_are_not_given_up_while_a_deletion_is_on_its_way() -> None:
    acknowledged = asyncio.Event()
    app: Any = SimpleNamespace(batches=SimpleNamespace(barrier=Barrier()))
    table: Any = SimpleNamespace(write=lambda _partition, _rows: acknowledged.wait())
    writing = asyncio.create_task(LedgerPages(app, table).write(0, [(b"a", None)]))
    await asyncio.sleep(0)
    assert not await app.batches.barrier.drained(0.01)
    acknowledged.set()
    await writing
    assert await app.batches.barrier.drained(0.01)
