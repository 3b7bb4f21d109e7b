"""What a worker talks to Kafka with, against the cluster in memory: aiokafka's consumer and our durable producer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import IllegalStateError, KafkaTimeoutError
from faust.types import TP

from tests.simulation.cluster import Cluster
from tests.simulation.machine import Machine

BUFFER_MAX = 3
"""Batches of a partition that wait to be sent before a producer must wait."""


class KafkaConsumer:
    """As much of `AIOKafkaConsumer` as the restore and the transport use."""

    def __init__(self, cluster: Cluster, machine: Machine) -> None:
        self._cluster = cluster
        self._machine = machine
        self.positions: dict[Any, int] = {}
        self._highwater: dict[Any, int] = {}

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""

    def assign(self, partitions: Iterable[Any]) -> None:
        self.positions = dict.fromkeys(sorted(partitions), 0)
        self._highwater = {}

    def assignment(self) -> set[Any]:
        return set(self.positions)

    def seek(self, tp: Any, offset: int) -> None:
        if tp not in self.positions:
            raise IllegalStateError(f"{tp} is not assigned")
        self.positions[tp] = offset

    async def seek_to_beginning(self, *partitions: Any) -> None:
        for tp in partitions:
            self.seek(tp, 0)

    async def position(self, tp: Any) -> int:
        return self.positions[tp]

    async def committed(self, tp: Any) -> int | None:
        group = self._cluster.group
        offset: int | None = await self._cluster.call(self._machine, group.committed.get, TP(tp.topic, tp.partition))
        return offset

    def highwater(self, tp: Any) -> int | None:
        return self._highwater.get(tp)

    async def getmany(self, *partitions: Any, timeout_ms: int = 0) -> dict[Any, list[Any]]:
        """Fetch: of each partition any number of its next records."""
        rng = self._cluster.world.rng
        wanted = {tp: (self.positions[tp], rng.choice((1, 7, 60, 500))) for tp in sorted(partitions)}
        found = await self._cluster.call(self._machine, self._read, wanted)
        result = {}
        for tp, (records, end) in found.items():
            if self.positions.get(tp) != wanted[tp][0]:
                continue  # sought elsewhere meanwhile: aiokafka drops such a fetch
            self._highwater[tp] = end
            if records:
                self.positions[tp] = records[-1].offset + 1
                result[tp] = records
            elif self.positions[tp] < end:
                self.positions[tp] = end  # only a gap is left
        if not result:
            await asyncio.sleep(timeout_ms / 1000 * rng.random())
        return result

    def _read(self, wanted: dict[Any, tuple[int, int]]) -> dict[Any, tuple[list[Any], int]]:
        result = {}
        for tp, (position, limit) in wanted.items():
            log = self._cluster.log(tp.topic, tp.partition)
            result[tp] = log.read(position, limit), log.end
        return result


class _Queue:
    """Batches of one partition on their way; aiokafka has one of them in flight at a time."""

    def __init__(self) -> None:
        self.batches: deque[tuple[list[Any], asyncio.Future[Any]]] = deque()
        self.wake = asyncio.Event()
        self.space = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Producer:
    """As `app.stream.producer.DurableProducer`, with batches cut anywhere and acknowledgements that take their time.

    Parameters
    ----------
    idempotent
        Whether the broker drops a batch that is sent again because its acknowledgement was lost.
    lost
        Chance that an acknowledgement is lost.
    """

    def __init__(self, cluster: Cluster, machine: Machine, process: Any, *, idempotent: bool, lost: float) -> None:
        self._cluster = cluster
        self._machine = machine
        self._process = process
        self._idempotent = idempotent
        self._lost = lost
        self._queues: dict[TP, _Queue] = {}
        self._round_robin = 0

    async def start(self) -> None:
        """Connect."""

    async def enqueue(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Any = (), partition: int | None = None
    ) -> asyncio.Future[Any]:
        return await self._queue(topic, partition or 0, [(key, value, headers)])

    async def enqueue_rows(
        self,
        topic: str,
        partition: int,
        rows: Iterable[tuple[bytes, bytes | None]],
        timestamp_ms: int,
        headers: Any = (),
    ) -> list[tuple[asyncio.Future[Any], int]]:
        return await self._queue_all(topic, partition, [(key, value, headers) for key, value in rows])

    async def enqueue_batch(
        self, topic: str, partition: int, records: Sequence[Any], timestamp_ms: int
    ) -> list[tuple[asyncio.Future[Any], int]]:
        return await self._queue_all(topic, partition, [(r.key, r.value, r.headers) for r in records])

    async def _queue_all(self, topic: str, partition: int, rows: list[Any]) -> list[tuple[asyncio.Future[Any], int]]:
        futures = []
        rng = self._cluster.world.rng
        while rows:
            count = len(rows) if rng.random() < 0.7 else rng.randint(1, len(rows))
            futures.append((await self._queue(topic, partition, rows[:count]), count))
            rows = rows[count:]
        return futures

    async def _queue(self, topic: str, partition: int, rows: list[Any]) -> asyncio.Future[Any]:
        tp = TP(topic, partition)
        queue = self._queues.get(tp)
        if queue is None:
            queue = self._queues[tp] = _Queue()
            queue.task = asyncio.ensure_future(self._send(tp, queue))
        self._process.point(f"queue {topic}")
        while len(queue.batches) >= BUFFER_MAX:
            queue.space.clear()
            await queue.space.wait()
        future: asyncio.Future[Any] = self._machine.create_future()
        queue.batches.append((rows, future))
        queue.wake.set()
        return future

    async def _send(self, tp: TP, queue: _Queue) -> None:
        rng = self._cluster.world.rng
        while True:
            while not queue.batches:
                queue.wake.clear()
                await queue.wake.wait()
            rows, future = queue.batches.popleft()
            queue.space.set()
            slow = self._cluster.slow_until[tp] - self._cluster.world.now
            if slow > 0:
                await asyncio.sleep(slow)
            await self._process.confirm_lease()
            stuck_s, self._process.stuck_s = self._process.stuck_s, 0.0
            base = await self._cluster.call(self._machine, self._append, tp, rows, late_s=stuck_s)
            while rng.random() < self._lost:
                await asyncio.sleep(0.2)
                if not self._idempotent:
                    base = await self._cluster.call(self._machine, self._append, tp, rows)
            self._process.point(f"acked {tp.topic}")
            if self._process.gives_up():
                future.set_exception(KafkaTimeoutError())
                continue
            future.set_result(SimpleNamespace(offset=base))

    def _append(self, tp: TP, rows: list[Any]) -> int:
        base = self._cluster.append(tp.topic, tp.partition, rows)
        if self._machine.alive:
            self._process.reached(f"appended {tp.topic}")
        return base
