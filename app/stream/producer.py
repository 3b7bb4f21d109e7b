"""The producer whose every record is awaited: outputs, and changelog batches of one partition.

Nothing here gives up quietly: a record that cannot be produced raises, and the caller ends the process before the
source offset is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.produce import ProduceRequest

from app.core.row_parts import Output
from app.stream import connection
from app.stream.record_batch import RecordBatchBuilder, pack_outputs, pack_rows

connection.install()

CHANGELOG_BATCH_BYTES: Final = 512 * 1024


class DurableProducer:
    """An aiokafka producer with `acks=all`, started and stopped by the app.

    Parameters
    ----------
    settings
        Connection settings for `AIOKafkaProducer` (bootstrap servers, security, client id).
    idempotent
        On Apache Kafka always true; the embedded broker does not know the protocol.
    permission
        Awaited before each request that produces: returns while the partitions are ours, else does not return.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        idempotent: bool = True,
        linger_ms: int = 2,
        permission: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._settings = settings
        self._permission = permission
        self._idempotent = idempotent
        self._linger_ms = linger_ms
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect. Raises `aiokafka.errors.KafkaConnectionError`."""
        self._producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=self._idempotent,
            linger_ms=self._linger_ms,
            max_batch_size=CHANGELOG_BATCH_BYTES,
            max_request_size=4 * CHANGELOG_BATCH_BYTES,
            request_timeout_ms=30_000,
            **self._settings,
        )
        if self._permission is not None:
            _ask_before_producing(self._producer.client, self._permission)
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    @property
    def client(self) -> AIOKafkaProducer:
        """The started producer."""
        assert self._producer is not None, "the producer has not been started"
        return self._producer

    async def enqueue(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> asyncio.Future[Any]:
        """Queue one record; waits only while the buffer is full. The future is its acknowledgement."""
        future: asyncio.Future[Any] = await self.client.send(
            topic, value=value, key=key, partition=partition, headers=list(headers)
        )
        return future

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> None:
        """Produce one record and await its acknowledgement."""
        await (await self.enqueue(topic, key, value, headers, partition))

    async def enqueue_rows(
        self,
        topic: str,
        partition: int,
        rows: Iterable[tuple[bytes, bytes | None]],
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """Queue changelog records of one partition, all with the same headers; see `enqueue_batch`."""
        return await self._send_all(pack_rows(rows, headers, timestamp_ms, CHANGELOG_BATCH_BYTES), topic, partition)

    async def enqueue_batch(
        self, topic: str, partition: int, records: Sequence[Output], timestamp_ms: int
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """Queue records of one partition in order, in as few batches as their size allows.

        A batch costs less than a microsecond a record, `enqueue` some twenty.

        Returns
        -------
        list of (future, number of records)
            One acknowledgement (`RecordMetadata` of the batch's first record) a batch.
        """
        return await self._send_all(pack_outputs(records, timestamp_ms, CHANGELOG_BATCH_BYTES), topic, partition)

    async def _send_all(
        self, batches: Sequence[RecordBatchBuilder], topic: str, partition: int
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """Queue batches in order; waits only while the buffer is full."""
        send = self.client.send_batch
        return [(await send(batch, topic, partition=partition), batch.record_count()) for batch in batches]


def _ask_before_producing(client: Any, permission: Callable[[], Awaitable[None]]) -> None:
    """Let aiokafka's client await `permission` as the last thing before it writes a produce request to the socket.

    Asked when a record is queued it would say little: the record may wait for long, in a process that is suspended.
    """
    send = client.send

    async def guarded(node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        if isinstance(request, ProduceRequest):
            await client.ready(node_id, group=group)
            await permission()
        return await send(node_id, request, group=group)

    client.send = guarded
