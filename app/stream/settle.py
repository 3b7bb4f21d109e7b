"""Makes what came of a fetch durable, in the order that `app.stream.engine` promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from app.core.effects import Effects
from app.core.row_parts import Output
from app.stream.app import StreamApp
from app.stream.partition import Partition, Settling, Work
from app.stream.table import PendingWrite, RowTable


class Worked(NamedTuple):
    """What came of a portion of a partition's records, or of rows that something else has changed."""

    partition: int
    state: Partition
    work: Work


class _Step(NamedTuple):
    """The same, queued for the changelog."""

    partition: int
    effects: Effects
    write: PendingWrite | None


class Settler:
    """Queues rows, and has a task for each fetch that waits for acknowledgements, publishes, and waits again.

    Parameters
    ----------
    copartitioned
        Topics whose outputs go to the row's own partition, as whole batches.
    """

    def __init__(self, app: StreamApp, table: RowTable, copartitioned: frozenset[str]) -> None:
        self._app = app
        self._table = table
        self._copartitioned = copartitioned
        self._tasks: set[asyncio.Task[None]] = set()

    async def settle(self, works: Sequence[Worked], *, flush: bool = False) -> asyncio.Task[None]:
        """Queue the rows for the changelog, in order, and leave the rest to a task. The partitions' locks are held.

        `flush` brings them to disk, so that a compaction finds what they have replaced.
        """
        steps = [await self._queue(worked.partition, worked.work) for worked in works]
        before = dict.fromkeys(worked.state.newest for worked in works if worked.state.newest is not None)
        settling = Settling()
        task = asyncio.create_task(self._make_durable(steps, before, settling, flush=flush))
        settling.task = task
        for worked in works:
            worked.state.newest = settling
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _queue(self, partition: int, work: Work) -> _Step:
        try:
            write = None
            if work.rows:
                write = await self._table.begin_write(partition, work.rows, added=work.added)
        except Exception as exc:
            self._app.fatal("a changelog record could not be queued", exc)
        return _Step(partition, work.effects, write)

    async def _make_durable(
        self, steps: Sequence[_Step], before: Iterable[Settling], settling: Settling, *, flush: bool
    ) -> None:
        try:
            for partition, _, write in steps:
                if write is not None:
                    await self._table.commit_write(write)
                    if flush and (store := self._table.stores.get(partition)) is not None:
                        store.flush()
            for earlier in before:
                await earlier.published
            acknowledgements: list[asyncio.Future[Any]] = []
            for partition, effects, _ in steps:
                acknowledgements += await self.enqueue(partition, effects.outputs)
            settling.published.set_result(None)
            for acknowledgement in acknowledgements:
                await acknowledgement
            for earlier in before:
                if earlier.task is not None:
                    await earlier.task
        except Exception as exc:
            self._app.fatal("an effect could not be made durable; its offset is not committed", exc)

    async def enqueue(self, partition: int, outputs: Sequence[Output]) -> list[asyncio.Future[Any]]:
        """Queue outputs: whole batches to co-partitioned topics, single records to the others."""
        producer = self._app.durable_producer
        futures: list[asyncio.Future[Any]] = []
        together: dict[str, list[Output]] = {}
        for output in outputs:
            if output.topic in self._copartitioned:
                together.setdefault(output.topic, []).append(output)
            else:
                futures.append(await producer.enqueue(output.topic, output.key, output.value, output.headers))
        now_ms = time.time_ns() // 1_000_000
        for topic, records in together.items():
            batches = await producer.enqueue_batch(topic, partition, records, now_ms)
            futures += [future for future, _ in batches]
        return futures
