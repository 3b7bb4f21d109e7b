"""An engine without Kafka: a log, a changelog and outputs in memory, acknowledgements under the test's control."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaConsumer

from app.core.effects import Effects
from app.core.profile import Profile
from app.core.row_parts import OutboxEntry, Output, Timer
from app.stream.barrier import Barrier
from app.stream.batch import RecordBatch
from app.stream.engine import Engine
from app.stream.stores import StoreFactory
from app.stream.table import RowTable


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes | None]] = ()


class Died(BaseException):
    """The process ended."""


@dataclass
class FakeProducer:
    """Keeps what it is given; `hold` keeps the acknowledgements back."""

    changelog: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    held: list[tuple[str, asyncio.Future[Any], Any]] = field(default_factory=list)
    hold: set[str] = field(default_factory=set)
    fail: set[str] = field(default_factory=set)
    full: asyncio.Event | None = None
    begins: int = 0
    """Where the changelog went on with our first record."""

    def _future(self, kind: str, metadata: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if kind in self.fail:
            future.set_exception(ConnectionError(f"{kind} refused"))
        elif kind in self.hold:
            self.held.append((kind, future, metadata))
        else:
            future.set_result(metadata)
        return future

    async def enqueue_rows(
        self,
        topic: str,
        partition: int,
        rows: Iterable[tuple[bytes, bytes | None]],
        timestamp_ms: int,
        headers: Any = (),
    ) -> list[tuple[asyncio.Future[Any], int]]:
        if self.full is not None:
            full, self.full = self.full, None
            await full.wait()  # as aiokafka does while the partition's last batch has not been taken
        base = self.begins + sum(1 for p, _, _ in self.changelog if p == partition)
        self.changelog += [(partition, key, value) for key, value in rows]
        return [(self._future("changelog", SimpleNamespace(offset=base)), len(rows))]

    async def enqueue(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Any = (), partition: int | None = None
    ) -> asyncio.Future[Any]:
        self.outputs.append(Output(topic, key, value, list(headers)))
        return self._future("outputs", SimpleNamespace(partition=0, offset=len(self.outputs) - 1))

    async def enqueue_batch(
        self, topic: str, partition: int, records: Sequence[Output], timestamp_ms: int
    ) -> list[tuple[asyncio.Future[Any], int]]:
        self.outputs += records
        return [(self._future("outputs", None), len(records))]

    def release(self, kind: str) -> None:
        """Acknowledge what was held back of `kind`, oldest first."""
        self.hold.discard(kind)
        for _, future, metadata in [entry for entry in self.held if entry[0] == kind]:
            future.set_result(metadata)
        self.held = [entry for entry in self.held if entry[0] != kind]


class FakeApp:
    """What the engine uses of the app."""

    def __init__(self) -> None:
        self.durable_producer = FakeProducer()
        self.batches = SimpleNamespace(barrier=Barrier(), flow_active=True, highwater=lambda tp: self.end)
        self.died: list[str] = []
        self.end: int | None = None
        """Where the source's partition ends, as far as that is known."""
        self.log: dict[int, bytes] = {}
        """Keys of what can be looked up in the source, by offset."""

    async def confirm_lease(self) -> None: ...

    async def key_at(self, _topic: str, _partition: int, offset: int) -> bytes | None:
        return self.log.get(offset)

    def fatal(self, what: str, exc: BaseException | None = None) -> None:
        self.died.append(what)
        raise Died(what) from exc


class CountingProcessor:
    """Counts events of each row; a value of ``out`` makes an output, ``timer`` sets one that is due at 1000."""

    def process(
        self,
        records: Sequence[Any],
        topic: str,
        partition: int,
        rows: dict[bytes, Profile],
        *,
        now_ms: int,
        acked_offset: int,
        reload: Callable[[bytes], Profile | None],
    ) -> Effects:
        effects = Effects()
        for record in records:
            row = rows.setdefault(record.key, Profile())
            if record.offset <= row.offset:
                continue
            row.outbox = [entry for entry in row.outbox if entry.mark >= acked_offset]
            row.offset, row.events = record.offset, row.events + 1
            if record.value == b"out":
                output = Output("decisions", record.key, b"%d" % record.offset)
                row.outbox.append(OutboxEntry(record.offset, output))
                effects.outputs.append(output)
            if record.value == b"timer":
                row.timers.append(Timer(1000, 1))
                effects.due.append((1000, record.key))
            effects.changed[record.key] = row
        return effects

    def fire(
        self, keys: Iterable[bytes], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        effects = Effects()
        for key in keys:
            row = rows[key]
            due = [timer for timer in row.timers if timer.due_ms <= now_ms]
            for timer in due:
                row.timers.remove(timer)
                output = Output("decisions", key, b"timer")
                row.outbox.append(OutboxEntry(mark, output))
                effects.outputs.append(output)
                effects.changed[key] = row
        return effects


class NoObserver:
    def effects(self, effects: Effects, partition: int) -> None: ...

    def batch(self, records: int, seconds: float) -> None: ...

    def durable(self, effects: Effects) -> None: ...

    def members(self, partition: int, counts: Mapping[int, int] | None) -> None: ...


class BareTable(RowTable):
    """A row table that Faust knows nothing of."""

    def __init__(self, app: Any, factory: StoreFactory) -> None:
        self.app = app
        self.name = "profiles"
        self.set_up("changelog", factory)
        self.connect = AIOKafkaConsumer
        self.owner = b"me"


@dataclass
class Rig:
    """An engine on partition 0, or on more, and what it talks to."""

    app: FakeApp
    engine: Engine
    table: BareTable
    now_ms: int = 0
    completed: list[int] = field(default_factory=list)

    def batch(self, *values: tuple[str, str], start: int, partition: int = 0) -> RecordBatch:
        """A batch of (user, value) records at offsets from `start`."""
        records = [FakeRecord(u.encode(), v.encode(), start + i) for i, (u, v) in enumerate(values)]
        barrier = self.app.batches.barrier

        def begin(batch: RecordBatch) -> bool:
            barrier.begin(("events", partition), batch.next_offset, 1)
            return True

        def complete(batch: RecordBatch) -> None:
            barrier.complete(("events", partition), batch.next_offset, 1)
            self.completed.append(batch.next_offset)

        return RecordBatch("events", partition, records, 1, begin, complete)

    async def settled(self) -> None:
        """Wait until nothing is in flight."""
        assert await self.app.batches.barrier.drained(5.0)

    async def turn(self) -> None:
        """Let the tasks run as far as they can."""
        for _ in range(20):
            await asyncio.sleep(0)


async def make_rig(
    path: Path,
    *,
    committed: int = 0,
    cache_rows: int = 1000,
    processor: Any = None,
    subjects: Any = None,
    partitions: int = 1,
) -> Rig:
    """Open (again) what is at `path`, as a worker does that was assigned so many partitions."""
    app = FakeApp()
    table = BareTable(app, StoreFactory(path))
    rig = Rig(app, None, table)  # type: ignore[arg-type]
    rig.engine = Engine(
        app,  # type: ignore[arg-type]
        table,
        "events",
        processor or CountingProcessor(),
        NoObserver(),
        lambda: rig.now_ms,
        cache_rows=cache_rows,
        copartitioned=frozenset({"decisions"}),
        subjects=subjects,
    )
    for partition in range(partitions):
        table.stores[partition] = table.factory.open("profiles", partition)
        rig.engine.begin_scan(partition)
        table.stores[partition].scan(partial(rig.engine.visit, partition))
    app.durable_producer.begins = table.stores[0].next_offset
    rig.engine.assigned(set(range(partitions)))
    await rig.engine.before_resume(dict.fromkeys(range(partitions), committed))
    return rig
