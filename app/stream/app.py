"""The Faust app with our data plane in it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from app.stream.commits import decode_note, look, read_commits
from app.stream.history import HistoryReader
from app.stream.lease import Lease, LeaseLost
from app.stream.process import Process
from app.stream.producer import DurableProducer
from app.stream.recovery import RowTableManager
from app.stream.table import RowTable
from app.stream.transport import BatchedConsumer, BatchedTransport, BatchSchema

log = structlog.get_logger(__name__)

EXIT_FATAL = 70
_STDERR: Final = 2
_LOOK_S: Final = 10.0
SESSION_S = 60.0
"""Faust's own session timeout, where the app is told none."""


class SourceClient(Protocol):
    """Who consumes a source topic, and must know which of its partitions are ours."""

    def assigned(self, partitions: set[int]) -> None:
        """Exactly these partitions are ours; their tables are restored."""

    async def before_resume(self, offsets: Mapping[int, int]) -> None:
        """Events will be delivered from these offsets, by partition, when this returns."""

    async def drain(self) -> None:
        """The partitions are about to be given up: complete what waits for something else than acknowledgements."""


class TableClient(SourceClient, Protocol):
    """Who works with a table's partitions: told what a restore found."""

    keeps_offsets: bool
    """Whether rows remember offsets of the source topic, and pass by what stands before them."""

    def begin_scan(self, partition: int) -> None:
        """All rows of the partition follow by `visit`; what was known of it is void."""

    def visit(self, partition: int, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Some of the rows."""


class StreamApp(faust.App):
    """Batches in, durable effects out.

    Parameters
    ----------
    client_settings
        Connection settings for aiokafka clients: bootstrap servers, security.
    idempotent
        Whether the broker knows the idempotent producer (Apache Kafka does, the embedded broker does not).
    """

    def __init__(
        self, *args: Any, client_settings: Mapping[str, Any], idempotent: bool = True, linger_ms: int = 2, **kwargs: Any
    ) -> None:
        self.client_settings = dict(client_settings)
        self.lease = Lease(float(kwargs.get("broker_session_timeout", SESSION_S)))
        self.durable_producer = DurableProducer(
            self.client_settings, idempotent=idempotent, linger_ms=linger_ms, permission=self.confirm_lease
        )
        self.recheck_gaps = not idempotent
        self.settled: asyncio.Event | None = None
        """Set while all that was begun is durable. With one, the consumer gathers (`BatchedConsumer`)."""
        self._producing = False
        self.preflight: Callable[[], Awaitable[None]] | None = None
        self._tables: list[tuple[RowTable, str, TableClient]] = []
        self._clients: list[tuple[str, SourceClient]] = []
        self.on_remaining: Callable[[str, int], None] = lambda table, remaining: None
        self.on_rebalanced: Callable[[], None] = lambda: None
        self.on_committed: Callable[[float], object] = lambda seconds: None
        self.on_gone: Callable[[str, int], object] = lambda topic, gone: None
        self.commit_note: Callable[[str, int, int], str] = lambda topic, partition, offset: ""
        """What a commit of an offset carries as metadata. Asked in the consumer's thread."""
        super().__init__(*args, TableManager=RowTableManager, Worker=Process, **kwargs)

    def _new_transport(self) -> BatchedTransport:
        return BatchedTransport(self.conf.broker_consumer, self)

    def batched_topic(self, name: str, *, partitions: int | None = None) -> Any:
        """A topic whose agent receives what a fetch brought of it: a list of `RecordBatch`, one a partition.

        Without Faust's acknowledgements: it acknowledges when a stream moves on, whatever became of the event, and
        keeps each acknowledged offset until a commit of its own takes it away.
        """
        return self.topic(name, partitions=partitions, schema=BatchSchema(), value_type=None, key_type=None, acks=False)

    def bind(self, table: RowTable, source: str, client: TableClient) -> None:
        """Partition p of `table` is restored wherever partition p of topic `source` is assigned."""
        self.tables.add(table)
        self._tables.append((table, source, client))
        self.watch(source, client)

    def watch(self, source: str, client: SourceClient) -> None:
        """Tell `client` about the partitions of topic `source`."""
        self._clients.append((source, client))

    @property
    def batches(self) -> BatchedConsumer:
        """The consumer."""
        consumer: BatchedConsumer = self.consumer
        return consumer

    def folded_topics(self) -> set[str]:
        """The source topics whose offsets rows remember."""
        return {source for _table, source, client in self._tables if client.keeps_offsets}

    async def key_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """The key of a record; None where there is no such record, or nobody answers."""
        record = await self.record_at(topic, partition, offset)
        return None if record is None else record.key

    async def committed_lasts(self, topic: str, partitions: Collection[int]) -> dict[int, str]:
        """What our commits say of the record before them; nothing where they do not, or nobody answers."""
        if not partitions:
            return {}
        try:
            async with asyncio.timeout(_LOOK_S):
                found = await read_commits(self.client_settings, self.conf.id, topic, partitions)
        except (KafkaError, TimeoutError) as exc:
            log.warning("commits_not_looked_up", topic=topic, error=repr(exc))
            return {}
        return {partition: last for partition, at in found.items() if (last := decode_note(at.note).last)}

    async def records_at(self, topic: str, offsets: Mapping[int, int]) -> dict[int, Any]:
        """The records at these offsets by partition, of all of them at once; nothing where nobody answers."""
        try:
            async with asyncio.timeout(_LOOK_S):
                looks = await look(self.client_settings, topic, offsets)
        except (KafkaError, TimeoutError) as exc:
            log.warning("records_not_looked_up", topic=topic, error=repr(exc))
            return {}
        found = {partition: seen.record for partition, seen in looks.items() if seen.record is not None}
        return {partition: record for partition, record in found.items() if record.offset == offsets[partition]}

    async def record_at(self, topic: str, partition: int, offset: int) -> Any | None:
        """A record; None where there is no such record, or nobody answers."""
        try:
            async with asyncio.timeout(_LOOK_S), HistoryReader(self.client_settings, topic, partition) as reader:
                return await reader.at(offset)
        except (KafkaError, TimeoutError) as exc:
            log.warning("record_not_looked_up", topic=topic, partition=partition, offset=offset, error=repr(exc))
            return None

    # -- called by RowRecovery

    async def restore_tables(self, interrupted: Callable[[], bool]) -> bool:
        """Bring every table to its changelog's end; False when another rebalance interrupted."""
        if not self._producing:
            await self.durable_producer.start()
            self._producing = True
        self.on_rebalanced()
        assignment = self.consumer.assignment()
        for table, source, client in self._tables:
            partitions = {tp.partition for tp in assignment if tp.topic == source}
            done = await table.restore(
                partitions,
                self.client_settings,
                interrupted=interrupted,
                on_remaining=lambda remaining, name=table.name: self.on_remaining(name, remaining),  # type: ignore[misc]
                visit=client.visit,
                begin_scan=client.begin_scan,
            )
            if not done:
                return False
        for source, watcher in self._clients:
            watcher.assigned({tp.partition for tp in assignment if tp.topic == source})
        return True

    async def before_resume(self, offsets: Mapping[TP, int]) -> None:
        """Tell each client from where its source partitions will be read."""
        for source, client in self._clients:
            await client.before_resume({tp.partition: offset for tp, offset in offsets.items() if tp.topic == source})

    async def drain(self) -> None:
        """Called when partitions are about to be given up, before what is in flight is awaited."""
        for _source, client in self._clients:
            await client.drain()

    async def confirm_lease(self) -> None:
        """Return while our partitions are ours; without a lease on them nothing in flight may become durable."""
        if self.lease.valid:
            return
        try:
            await self.lease.confirm()
        except LeaseLost as exc:
            self.fatal("what is in flight must not be written", exc)

    async def on_start(self) -> None:
        """Wait for what the worker cannot do without (the broker, its topics), then start."""
        if self.preflight is not None:
            await self.preflight()
        await super().on_start()

    async def on_stop(self) -> None:
        """Disconnect the producer last: everything in flight has drained by now."""
        await super().on_stop()
        if self._producing:
            await self.durable_producer.stop()

    def fatal(self, what: str, exc: BaseException | None = None) -> NoReturn:
        """End the process at once, before any further commit. Replay is safe; going on is not.

        Why is said twice: as a log record, and before it past Python's buffers, since logging may be half torn down.
        """
        why = f"nudge: exit code {EXIT_FATAL}: {what}" + (f": {exc!r}" if exc is not None else "")
        try:
            os.write(_STDERR, f"{why}\n".encode(errors="replace"))
            log.critical("fatal", what=what, error=repr(exc), exit_code=EXIT_FATAL, exc_info=exc)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(EXIT_FATAL)
