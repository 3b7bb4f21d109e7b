"""Runs a pure processor over batches: rows in, effects out, effects durable in order, and only then the offset.

Order of durability for the batches of a fetch:

1. its changed rows, which hold its outputs in their outbox, are acknowledged by the changelog;
2. they are in the row store, with the changelog position (on disk some seconds later, both in one write);
3. its outputs are acknowledged;
4. they are complete: their offsets may be committed.

So a decision is made once, in a row, and published until it is acknowledged. After a crash between 1 and 3 the
restore finds the outbox and publishes it again, under the same ids. A replayed event finds its offset in the row and
changes nothing. Fetches overlap: while one awaits acknowledgements the next is processed; they complete in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import structlog
from faust.types import TP

from app.core import owed
from app.core.effects import Effects
from app.core.erasure import is_mark, mark_key
from app.core.history import Windows
from app.core.row_heads import BadRow
from app.stream import replays
from app.stream.app import StreamApp
from app.stream.batch import Portion, RecordBatch, portions
from app.stream.contracts import BatchProcessor, Observer
from app.stream.inflight import InFlight
from app.stream.partition import Partition, RowCache, Work
from app.stream.rows import Loaded, RowReader, keys_of
from app.stream.settle import Settler, Worked
from app.stream.suspects import Suspects
from app.stream.table import RowTable
from app.stream.unreadable import decode_row, readable
from schemas.erasures import Subjects

log = structlog.get_logger(__name__)

CHUNK_RECORDS: Final = 1024
SLICE_RECORDS: Final = 256
"""Of 64 an event takes 2 % more instructions, and 6 to 8 % more time; of 512 as much as of 256."""
TIMER_ROWS_MAX: Final = 500
_NO_USER: Final = b"\xff"
"""No user's key begins with it, since no UTF-8 text does; but marks do, and what a store keeps of itself. Whatever an
event of such a key says, it is refused: nothing is to be read, let alone decoded as a row, for it.
"""


@contextlib.asynccontextmanager
async def _held(locks: Iterable[asyncio.Lock]) -> AsyncIterator[None]:
    """Take turns with whoever else changes rows of these partitions; nobody else takes more than one."""
    held: list[asyncio.Lock] = []
    try:
        for lock in locks:
            await lock.acquire()
            held.append(lock)
        yield
    finally:
        for lock in held:
            lock.release()


class Engine:
    """Folds the batches of one source topic into one row table.

    Parameters
    ----------
    clock_ms
        Event-time now, in milliseconds.
    cache_rows
        Decoded rows kept in memory, over all partitions.
    copartitioned
        Topics that have as many partitions as the source: outputs to them go to the row's own partition.
    subjects
        Keyed hashes under which the marks of erased users are kept; without them there are none.
    """

    keeps_offsets = True
    settler_type: ClassVar[type[Settler]] = Settler

    def __init__(
        self,
        app: StreamApp,
        table: RowTable,
        source: str,
        processor: BatchProcessor,
        observer: Observer,
        clock_ms: Callable[[], int],
        *,
        cache_rows: int = 1_000,
        copartitioned: frozenset[str] = frozenset(),
        subjects: Subjects | None = None,
    ) -> None:
        self.app = app
        self.table = table
        table.rewrite = self.rewrite
        self.source = source
        self.processor = processor
        self._observer = observer
        self._clock_ms = clock_ms
        self._cache_rows = cache_rows
        self._settler = self.settler_type(app, table, copartitioned)
        self._subjects = subjects
        self._reader = RowReader(table, subjects, clock_ms)
        self._suspects = Suspects(app, table, source, observer, clock_ms)
        self._partitions: dict[int, Partition] = {}
        self._inflight = InFlight()
        app.settled = self._inflight.empty
        self.on_wished: Callable[[int, list[tuple[int, bytes]]], None] = lambda partition, wishes: None

    # -- TableClient

    def begin_scan(self, partition: int) -> None:
        """Forget what was known of the partition."""
        self._partitions[partition] = Partition(self._cache_rows)

    def visit(self, partition: int, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Index some restored rows."""
        state = self._partitions[partition]
        try:
            state.index(rows)
        except BadRow:
            if partition not in self.table.rebuilt:
                raise  # to the scan, for which the store is damaged then
            state.index(readable(rows))

    def assigned(self, partitions: set[int]) -> None:
        """Exactly these partitions are ours."""
        for partition in set(self._partitions) - partitions:
            del self._partitions[partition]
            self._observer.members(partition, None)
        for partition, state in self._partitions.items():
            self._observer.members(partition, state.members)
            state.cache = RowCache(max(100, self._cache_rows // len(partitions)))
            state.newest = None
            state.looks = replays.LOOKS

    async def before_resume(self, offsets: Mapping[int, int]) -> None:
        """Publish again what the restored rows owe and the committed offset does not cover."""
        for partition, offset in offsets.items():
            state = self._partitions[partition]
            state.position = state.committed = offset
            owing, state.owing = state.owing, []
            for start in range(0, len(owing), CHUNK_RECORDS):
                await self._publish_owed(partition, owing[start : start + CHUNK_RECORDS], offset)

    async def drain(self) -> None:
        """Everything in flight waits for acknowledgements only."""

    async def _publish_owed(self, partition: int, keys: list[bytes], committed: int) -> None:
        outputs = [
            entry.output
            for key, value in zip(keys, self.table.get_many(partition, keys), strict=True)
            if value is not None and (row := decode_row(value, whole=True)) is not None
            for entry in owed.outputs(row, key)
            if entry.mark >= committed
        ]
        if outputs:
            log.info("outbox_published_again", partition=partition, records=len(outputs))
            await asyncio.gather(*await self._settler.enqueue(partition, outputs))

    # -- events and timers

    async def submit(self, *batches: RecordBatch) -> None:
        """Process the batches of a fetch, of another partition each; returns when they are processed, before they are
        durable.

        Small ones are processed together: what is queued in one go leaves in one request, and one task waits for it.
        """
        for together in portions(batches, CHUNK_RECORDS):
            await self._submit(together)
            await asyncio.sleep(0)

    async def _submit(self, together: Sequence[Portion]) -> None:
        records = sum(len(portion.records) for portion in together)
        await self._inflight.acquire(records)
        states = [self._partitions[portion.batch.partition] for portion in together]
        async with _held(state.lock for state in states):
            began = time.perf_counter()
            works = [await self._take(*each) for each in zip(together, states, strict=True)]
            task = await self._settle(works)
        task.add_done_callback(partial(self._end_flight, records))
        task.add_done_callback(partial(_complete, [portion.batch for portion in together if portion.last]))
        self._observer.batch(records, time.perf_counter() - began)

    async def _take(self, portion: Portion, state: Partition) -> Worked:
        """Process a portion; what has come of it is not queued yet."""
        partition = portion.batch.partition
        work = self._fold(portion.batch, portion.records)
        if work.unreadable:
            await self._suspects.bury(partition, work.unreadable)
        if work.doubts:
            await self._suspects.look_up(partition, state, max(work.doubts))
        state.position = portion.records[-1].offset + 1
        return Worked(partition, state, work)

    def _fold(self, batch: RecordBatch, records: Sequence[Any]) -> Work:
        """Process a portion a slice at a time, so that a slice's rows are in the processor's cache from their decoding
        to their encoding.
        """
        work = Work()
        moved: set[bytes] = set()
        partition = batch.partition
        for start in range(0, len(records), SLICE_RECORDS):
            moved |= self._fold_slice(batch, records[start : start + SLICE_RECORDS], work)
        if moved:
            old = self.table.get_many(partition, list(work.rows))
            pairs = zip(work.rows.values(), old, strict=True)
            work.added = sum((new is not None) - (was is not None) for new, was in pairs)
        return work

    def _fold_slice(self, batch: RecordBatch, part: Sequence[Any], work: Work) -> set[bytes]:
        """Process a slice; whatever of its rows the cache does not keep is free when this returns."""
        partition = batch.partition
        state = self._partitions[partition]
        keys = keys_of(part, _NO_USER)
        process = partial(
            self.processor.process,
            part,
            batch.topic,
            partition,
            now_ms=self._clock_ms(),
            acked_offset=self._acked(partition),
            reload=lambda key: self._reader.reload(partition, key, work.rows),
        )
        loaded, effects = self._process(partition, state, keys, work, process)
        work.add(effects, loaded.absent)
        if effects.moved:
            self._move(state, effects, work)
        if loaded.unreadable:
            work.replace(loaded.unreadable, self._clock_ms())
        if ("events", "replayed") in effects.counts:
            work.doubts += replays.doubts(part, loaded.rows)
        state.cache.end_slice(loaded.decoded)
        return effects.moved

    def _process(
        self, partition: int, state: Partition, keys: list[bytes], work: Work, process: Callable[..., Effects]
    ) -> tuple[Loaded, Effects]:
        """Load rows and have them processed.

        Most of a row is decoded when somebody asks for it. Should that turn out to be no row, all of these are looked
        through, and processed from the beginning: effects come whole or not at all.
        """
        loaded = self._reader.load(partition, state, keys, work.rows)
        try:
            return loaded, process(rows=loaded.rows)
        except BadRow:
            loaded = self._reader.load(partition, state, keys, work.rows, whole=True)
            if not loaded.unreadable:
                raise
            return loaded, process(rows=loaded.rows)

    def _move(self, state: Partition, effects: Effects, work: Work) -> None:
        """Store rows that have become marks, and marks that have become rows, under the other key.

        The new one goes first: a changelog that ends in between has both, and the request is folded again.
        """
        assert self._subjects is not None, "without subjects nobody is erased"
        for key in effects.moved & effects.changed.keys():
            mark = mark_key(self._subjects, key)
            raw = work.rows.pop(key)
            work.rows.pop(mark, None)
            erased = effects.changed[key].erased_ms > 0
            work.rows |= {mark: raw, key: None} if erased else {key: raw, mark: None}
            state.cache.rows.pop(mark, None)
            state.marks += erased

    async def tick(self) -> int:
        """Fire the timers that are due; returns how many rows were looked at."""
        looked = 0
        now_ms = self._clock_ms()
        for partition in list(self._partitions):
            while self.app.batches.flow_active and (state := self._partitions.get(partition)):
                keys = state.timers.pop_due(now_ms, TIMER_ROWS_MAX)
                if not keys:
                    break
                looked += len(keys)
                if await self._turn(partition, state, keys, partial(self.processor.fire, now_ms=now_ms)) is None:
                    for key in keys:
                        state.timers.add(0, key)
                    break
        return looked

    async def _turn(
        self, partition: int, state: Partition, keys: list[bytes], process: Callable[..., Effects]
    ) -> Effects | None:
        """Have rows changed by something else than their events; None when the partition is being given up."""
        if not await self._enter(partition, state, len(keys)):
            return None
        try:
            async with state.lock:
                work = Work()
                run = partial(process, keys, mark=state.position, acked_offset=self._acked(partition))
                loaded, effects = self._process(partition, state, keys, work, run)
                work.add(effects, loaded.absent)
                if loaded.unreadable:
                    work.replace(loaded.unreadable, self._clock_ms())
                    await self._suspects.bury(partition, work.unreadable)
                state.cache.end_slice(loaded.decoded)
                tidied = state.marks > 0 and any(map(is_mark, work.rows))
                task = await self._settle([Worked(partition, state, work)], flush=tidied)
        except Exception as exc:  # rows in memory may have changed, and commits are held back: nobody may try again
            self.app.fatal("rows could not be changed", exc)
        self._leave_after(task, len(keys))
        return effects

    async def rewrite(self, partition: int, keys: list[bytes]) -> None:
        """Write rows again as they are. When the partition is being given up, its next owner does it."""
        state = self._partitions.get(partition)
        if state is None or not await self._enter(partition, state, len(keys)):
            return
        async with state.lock:
            work = Work()
            work.rows = dict(zip(keys, self.table.get_many(partition, keys), strict=True))
            task = await self._settle([Worked(partition, state, work)])
        self._leave_after(task, len(keys))

    async def _enter(self, partition: int, state: Partition, rows: int) -> bool:
        """Take a place in flight, and hold back commits; False when the partition is being given up."""
        await self._inflight.acquire(rows)
        if not self.app.batches.flow_active or self._partitions.get(partition) is not state:
            self._inflight.release(rows)
            return False
        self.app.batches.barrier.hold()
        return True

    def _leave_after(self, task: asyncio.Task[None], rows: int) -> None:
        task.add_done_callback(partial(self._end_flight, rows))
        task.add_done_callback(self._release)

    def _end_flight(self, records: int, _task: asyncio.Task[None]) -> None:
        self._inflight.release(records)

    def _release(self, _task: asyncio.Task[None]) -> None:
        self.app.batches.barrier.release()

    # -- the backfill

    def tenures(self) -> dict[int, object]:
        """Our partitions; the value is another object when a partition came back to us."""
        return dict(self._partitions)

    def position(self, partition: int) -> int:
        """The partition's next source offset: everything before it is folded."""
        return self._partitions[partition].position

    async def settled(self, partition: int) -> None:
        """Return when what has been processed so far is in the store; its first page then has little to spill."""
        state = self._partitions.get(partition)
        if state is not None and state.newest is not None and state.newest.task is not None:
            await asyncio.wait([state.newest.task])
        await self.table.spill(partition)

    async def sweep(self, partition: int, keys: list[bytes], windows: Windows) -> Effects | None:
        """Bring rows that wait for no event to the policy in force; None when the partition is being given up."""
        state = self._partitions.get(partition)
        if state is None:
            return None
        now_ms = self._clock_ms()
        return await self._turn(
            partition, state, keys, lambda k, rows, **at: self.processor.sweep(k, rows, windows, now_ms=now_ms, **at)
        )

    async def adjust(self, partition: int, keys: list[bytes]) -> Effects | None:
        """Have rows that wait for no event follow the percentiles; None when the partition is being given up."""
        state = self._partitions.get(partition)
        if state is None:
            return None
        return await self._turn(partition, state, keys, partial(self.processor.adjust, now_ms=self._clock_ms()))

    async def visit_rows(self, partition: int, keys: list[bytes], process: Callable[..., Effects]) -> Effects | None:
        """Have rows changed by something else than their events; None when the partition is being given up."""
        state = self._partitions.get(partition)
        return None if state is None else await self._turn(partition, state, keys, process)

    def timer_entries(self) -> int:
        """Entries of the timer index, over all partitions."""
        return sum(len(state.timers) for state in self._partitions.values())

    def lag(self) -> dict[tuple[str, int], int]:
        """Records between each partition's position and its high watermark, where the broker has said it."""
        result = {}
        for partition, state in self._partitions.items():
            lag = self.app.batches.behind(TP(self.source, partition), state.position)
            if lag is not None:
                result[self.source, partition] = lag
        return result

    def _acked(self, partition: int) -> int:
        done: int = self.app.batches.barrier.committable((self.source, partition)) or 0
        return max(done, self._partitions[partition].committed)

    async def _settle(self, works: Sequence[Worked], *, flush: bool = False) -> asyncio.Task[None]:
        """Tell what was done, and have it made durable (`Settler.settle`)."""
        for partition, state, work in works:
            effects = work.effects
            self._observer.effects(effects, partition)
            if effects.wished:
                self.on_wished(partition, effects.wished)
            state.timers.add_all(effects.due)
        task = await self._settler.settle(works, flush=flush)
        task.add_done_callback(partial(self._tell_durable, [worked.work.effects for worked in works]))
        return task

    def _tell_durable(self, effects: Iterable[Effects], task: asyncio.Task[None]) -> None:
        if _ended_well(task):
            for each in effects:
                self._observer.durable(each)


def _complete(batches: Iterable[RecordBatch], task: asyncio.Task[None]) -> None:
    """All that follows from these batches is durable, where the task has ended well."""
    if _ended_well(task):
        for batch in batches:
            batch.complete()


def _ended_well(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None
