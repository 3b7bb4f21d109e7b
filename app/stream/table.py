"""Row tables: a Faust table whose partitions are row stores, written and restored in bulk.

To Faust it is a table (it is listed, it has a changelog topic, it makes the assignor keep partitions where their
state is); the data path is ours: `get_many`, `begin_write`, `restore`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import faust
import structlog

from app.stream.background import Background
from app.stream.fence import CLAIM_KEY, Fence, claim_headers, row_headers
from app.stream.fetch import ChangelogConsumer
from app.stream.producer import DurableProducer
from app.stream.restore import BULK_RECORDS, restore_partitions
from app.stream.standing import Standing
from app.stream.store import STEPS_MAX, PartitionStore, StoreDamaged
from app.stream.stores import StoreFactory
from app.stream.write_back import Entry

log = structlog.get_logger(__name__)

Row = tuple[bytes, bytes | None]

SPILL_S: Final = 5.0
"""A changed row is in memory only for so long, at most."""


class PendingWrite:
    """Rows that are on their way to the changelog; `done` is set when they are in the store too."""

    __slots__ = ("added", "done", "expected", "futures", "partition", "previous", "rows", "store")

    def __init__(
        self,
        partition: int,
        store: PartitionStore | None,
        rows: dict[bytes, bytes | None],
        added: int,
        previous: PendingWrite | None,
    ) -> None:
        self.partition = partition
        self.store = store
        self.expected: list[Entry] = [] if store is None else store.expect(rows)
        self.rows = rows
        self.added = added
        self.futures: list[tuple[asyncio.Future[Any], int]] = []
        self.previous = previous
        self.done = asyncio.Event()


class Spilling(Background):
    """Spills what has changed, each store in its turn: what is written seldom, too, leaves the memory soon.

    One store at a time, evenly spread and in steps: what is done at once holds the process up.
    """

    task_name = "spilling"

    def __init__(self, table: RowTable, every_s: float = SPILL_S) -> None:
        self._table = table
        self._every_s = every_s

    async def _run(self) -> None:
        while True:
            partitions = sorted(self._table.stores)
            pause_s = self._every_s / max(1, len(partitions))
            await asyncio.sleep(pause_s)
            loop_s = asyncio.get_running_loop().time
            for partition in partitions:
                until = loop_s() + pause_s
                await self._table.spill(partition, pause_s / STEPS_MAX)
                await asyncio.sleep(until - loop_s())


class RowTable(faust.Table):
    """One row a key, opaque bytes, a changelog record a changed row.

    Parameters
    ----------
    changelog
        Name of the changelog topic. It has as many partitions as the source topic, and a row of source partition p
        is in changelog partition p.
    """

    def __init__(self, app: Any, *, name: str, changelog: str, partitions: int, factory: StoreFactory) -> None:
        super().__init__(
            app,
            name=name,
            default=None,
            partitions=partitions,
            changelog_topic=app.topic(changelog, partitions=partitions, internal=False, compacting=True),
            store="memory://",  # Faust's own store stays empty
            standby_buffer_size=1,
        )
        self.set_up(changelog, factory)

    def set_up(self, changelog: str, factory: StoreFactory) -> None:
        """All that is ours and not Faust's."""
        self.changelog = changelog
        self.factory = factory
        self.connect: Callable[..., Any] = ChangelogConsumer
        """Makes the consumer that a restore reads with."""
        self.bulk_records = BULK_RECORDS
        """An empty store that more records follow is filled in bulk."""
        self.stores: dict[int, PartitionStore] = {}
        self.owner = uuid.uuid4().bytes
        """Who we are in the changelog's claims: this life of this worker."""
        self.fences: dict[int, Fence] = {}
        """Of the partitions that are ours: the epoch that we claimed."""
        self._pending: dict[int, list[PendingWrite]] = {}
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By partition, held from reading rows to queueing them: see `write`."""
        self._unscanned: set[int] = set()
        """Partitions whose rows have changed since their client last saw them, or may have."""
        self.rebuilt: set[int] = set()
        """Partitions whose store was empty when it was opened: all that is in it came from the changelog."""
        self._standing = Standing(self)
        self._spilling = Spilling(self)
        self.rewrite: Callable[[int, list[bytes]], Awaitable[None]] = self._rewrite
        """Writes rows again as they are; whoever writes rows of its own sets one that takes turns with that."""

    @property
    def producer(self) -> DurableProducer:
        """The app's producer of durable records."""
        producer: DurableProducer = self.app.durable_producer
        return producer

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """The newest values, whether they have reached the store yet or not; None where there is no row."""
        return self.stores[partition].get_many(keys)

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        """The partition and the newest value of a key, of those partitions that are ours; None where there is no row.

        Every partition is asked, so it holds for producers with a partitioner of their own, too.
        """
        for partition in self.stores:
            (value,) = self.get_many(partition, [key])
            if value is not None:
                return partition, value
        return None

    def keys_with_prefix(self, partition: int, prefix: bytes) -> list[bytes]:
        """Keys of the rows that begin with `prefix`, whether they have reached the store yet or not."""
        found = set(self.stores[partition].keys_with_prefix(prefix))
        for pending in self._pending.get(partition, ()):
            for key, value in pending.rows.items():
                if key.startswith(prefix):
                    (found.discard if value is None else found.add)(key)
        return sorted(found)

    async def begin_write(self, partition: int, rows: dict[bytes, bytes | None], *, added: int) -> PendingWrite:
        """Queue rows for the changelog, in order; `get_many` sees them at once.

        Parameters
        ----------
        rows
            The newest value by key, None to delete; not changed afterwards.
        added
            How many of the keys are new, less how many existing ones are deleted.
        """
        others = self._pending.setdefault(partition, [])
        pending = PendingWrite(partition, self.stores.get(partition), rows, added, others[-1] if others else None)
        others.append(pending)
        now_ms = time.time_ns() // 1_000_000
        fence = self.fences.get(partition)
        headers = [] if fence is None else row_headers(fence.epoch)
        pending.futures = await self.producer.enqueue_rows(self.changelog, partition, rows.items(), now_ms, headers)
        return pending

    async def commit_write(self, pending: PendingWrite) -> None:
        """Await the changelog's acknowledgements, then put the rows and the position in the store in one write.

        Acknowledged is not enough: a worker that was suspended, or too slow in a rebalance, may have been deposed
        before its rows arrived. So the lease is asked after the acknowledgement, which ends most such workers early,
        and then the changelog itself, which knows (`app.stream.standing`).

        Raises
        ------
        aiokafka.errors.KafkaError
            When the changelog refused. The caller ends the process: the source offset must not be committed.
        OSError
            When the disk refused.
        """
        places = [((await future).offset, count) for future, count in pending.futures]
        if places:
            await self.app.confirm_lease()
        if pending.previous is not None:
            await pending.previous.done.wait()
            pending.previous = None
        store = pending.store
        if store is not None and self._is_pending(pending):
            next_offset = await self._standing.confirm(pending.partition, places)
            if self._is_pending(pending):
                store.arrive(pending.expected, pending.rows.values(), added=pending.added, next_offset=next_offset)
        if self._is_pending(pending):
            self._pending[pending.partition].remove(pending)
        pending.done.set()

    async def spill(self, partition: int, pause_s: float = 0.0) -> None:
        """Bring what has changed in the store until now to RocksDB, with turns of so long for others in between."""
        store = self.stores.get(partition)
        try:
            for _ in store.spilling() if store is not None else ():
                await asyncio.sleep(pause_s)
                if self.stores.get(partition) is not store:
                    return
        except OSError as exc:
            self.app.fatal("rows could not be spilled", exc)

    def _is_pending(self, pending: PendingWrite) -> bool:
        """False once the partition was given up meanwhile: its store, or the next one, is no longer for this write."""
        return pending in self._pending.get(pending.partition, ())

    async def _rewrite(self, partition: int, keys: list[bytes]) -> None:
        async with self._turns[partition]:
            rows = dict(zip(keys, self.get_many(partition, keys), strict=True))
            pending = await self.begin_write(partition, rows, added=0)
        await self.commit_write(pending)

    async def write(self, partition: int, rows: Sequence[Row]) -> None:
        """`begin_write` and `commit_write`, with the count found by a read.

        Of several at a time each is queued before the next begins: while the producer's buffer is full queueing waits,
        and a row could come to stand in the changelog behind one that is newer.
        """
        newest = dict(rows)
        assert len(newest) == len(rows), "a key stands twice in one write"
        async with self._turns[partition]:
            existing = self.get_many(partition, list(newest))
            pairs = zip(newest.values(), existing, strict=True)
            added = sum((new is not None) - (old is not None) for new, old in pairs)
            pending = await self.begin_write(partition, newest, added=added)
        await self.commit_write(pending)

    async def restore(
        self,
        partitions: set[int],
        settings: Mapping[str, Any],
        *,
        interrupted: Callable[[], bool],
        on_remaining: Callable[[int], None],
        visit: Callable[[int, Sequence[tuple[bytes, bytes]]], None],
        begin_scan: Callable[[int], None],
    ) -> bool:
        """Own exactly `partitions`: close the others, open the new ones, and read each to its changelog's end.

        The end is our own claim (`app.stream.fence`): what a deposed owner may still write comes after it, and is void.
        A partition that was ours before is claimed again: in between it may have been, for a moment, another's whose
        claim is still on its way.

        A partition whose rows have changed, or that was just opened, is scanned: `begin_scan(partition)`, then
        `visit(partition, rows)` until it has seen all of them.

        Returns
        -------
        bool
            False when interrupted by another rebalance.
        """
        for partition in set(self.stores) - partitions:
            self.close_partition(partition)
        for partition in partitions - set(self.stores):
            self._keep(partition, self._open(partition))
            self._unscanned.add(partition)
        claimed: dict[int, int] = {}
        wiped: set[int] = set()
        while True:
            try:
                stores = {partition: self.stores[partition] for partition in partitions}
                applied = await restore_partitions(
                    settings,
                    self.changelog,
                    stores,
                    interrupted=interrupted,
                    on_remaining=on_remaining,
                    connect=self.connect,
                    bulk_records=self.bulk_records,
                    fences={partition: self.fences[partition] for partition in partitions},
                )
                if applied is None:  # what it applied before it was interrupted has been seen by nobody
                    self._unscanned |= partitions
                    return False
                self._unscanned |= {partition for partition, records in applied.items() if records}
                unclaimed = [p for p in partitions if not self._owns(p, claimed.get(p))]
                if unclaimed:
                    if interrupted():
                        return False
                    claimed |= await self._claim(unclaimed)
                    continue
                await self._repair(partitions)
                for partition in sorted(self._unscanned):
                    begin_scan(partition)
                    if not await self._scanned(partition, partial(visit, partition), interrupted):
                        return False
                for store in stores.values():  # the last thing: what is merged then would hold the scans up
                    store.end_bulk()
                if stale := self.factory.drop_stale(self.name, partitions, time.time()):
                    log.info("stale_stores_removed", table=self.name, partitions=stale)
                return True
            except StoreDamaged as exc:
                self._rebuild(exc, partitions, wiped)

    def _rebuild(self, exc: StoreDamaged, partitions: set[int], wiped: set[int]) -> None:
        """Have the damaged store read anew. Raises `exc` when that was done before, and so is of no use."""
        damaged = next(p for p in partitions if self.factory.path(self.name, p) == exc.path)
        if damaged in wiped:
            raise exc
        wiped.add(damaged)
        log.error("store_damaged", table=self.name, partition=damaged, error=str(exc), action="rebuild")
        self._wipe(damaged)
        self._unscanned.add(damaged)

    async def _scanned(
        self, partition: int, visit: Callable[[Sequence[tuple[bytes, bytes]]], None], interrupted: Callable[[], bool]
    ) -> bool:
        """Show all rows, with turns for others in between: a million take ten seconds. False when interrupted."""
        store = self.stores[partition]
        for _ in store.scanning(visit):
            await asyncio.sleep(0)
            if interrupted() or self.stores.get(partition) is not store:
                return False
        self._unscanned.discard(partition)
        return True

    def _owns(self, partition: int, epoch: int | None) -> bool:
        """Whether our claim with this epoch is the newest that counts."""
        fence = self.fences[partition]
        return fence.owner == self.owner and fence.epoch == epoch

    async def _claim(self, partitions: list[int]) -> dict[int, int]:
        """Append a claim of each partition; whether it counts shows when it is read. Returns the epochs claimed."""
        epochs = {partition: self.fences[partition].epoch + 1 for partition in partitions}
        sent = [
            await self.producer.enqueue(self.changelog, CLAIM_KEY, None, claim_headers(epoch, self.owner), partition)
            for partition, epoch in epochs.items()
        ]
        await asyncio.gather(*sent)
        return epochs

    async def _repair(self, partitions: set[int]) -> None:
        """Write rows again that precede a void record of their key: a compaction would keep that and drop the row."""
        for partition in sorted(partitions):
            fence = self.fences[partition]
            self._standing.forget(partition)
            if fence.void:
                keys = sorted(fence.void)
                log.warning("void_records", table=self.name, partition=partition, keys=len(keys), action="write again")
                await self._rewrite(partition, keys)
                fence.void.clear()

    def _keep(self, partition: int, store: PartitionStore) -> None:
        self.stores[partition] = store
        self.fences[partition] = Fence(store.epoch)
        (self.rebuilt.discard if store.reach else self.rebuilt.add)(partition)

    def doubt(self, partition: int) -> None:
        """Have the next start rebuild this partition's store. Raises `OSError`."""
        self.factory.doubt(self.name, partition)

    def _open(self, partition: int) -> PartitionStore:
        try:
            return self.factory.open(self.name, partition)
        except StoreDamaged as exc:
            log.error("store_damaged", table=self.name, partition=partition, error=str(exc), action="rebuild")
            self.factory.wipe(self.name, partition)
            return self.factory.open(self.name, partition)

    def _wipe(self, partition: int) -> None:
        self.close_partition(partition)
        self.factory.wipe(self.name, partition)
        self._keep(partition, self.factory.open(self.name, partition))

    def close_partition(self, partition: int) -> None:
        """Give the partition up; its store stays on disk for a cheap return."""
        store = self.stores.pop(partition, None)
        self._pending.pop(partition, None)
        self.fences.pop(partition, None)
        self._standing.forget(partition)
        self._unscanned.discard(partition)
        if store is not None:
            try:
                store.close()
            except Exception as exc:  # a damaged store may refuse; nothing in it is needed
                log.warning("store_close_failed", table=self.name, partition=partition, error=str(exc))

    async def on_start(self) -> None:
        """Begin to spill, and to look at the changelog now and then."""
        await super().on_start()
        self._standing.start()
        self._spilling.start()

    async def on_stop(self) -> None:
        """Flush and close the stores."""
        await self._standing.stop()
        await self._spilling.stop()
        for partition in list(self.stores):
            self.close_partition(partition)
        await super().on_stop()
