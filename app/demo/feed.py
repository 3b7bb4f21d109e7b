"""Producing to `events` fast, and knowing exactly which offsets were acknowledged.

Records of one partition leave as one batch, with the partition given: the client's own partitioner hashes each key in
Python, so the hash of a user is kept instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from app.stream.started import started
from schemas.topics import EVENTS

_BATCH_BYTES_MAX = 256 * 1024
_FLIGHTS_MAX = 64


class EventFeed:
    """A producer of events that keeps account.

    Parameters
    ----------
    idempotent
        True on Apache Kafka; the embedded broker has no idempotent producer.
    security
        Passed to aiokafka: `security_protocol`, `ssl_context`, `sasl_*`.

    Raises
    ------
    aiokafka.errors.KafkaError
        From `flush` and `close`, when a batch was refused or not acknowledged in time.
    """

    def __init__(self, bootstrap: str, *, topic: str = EVENTS, idempotent: bool = False, **security: Any) -> None:
        self._topic = topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=idempotent,
            max_batch_size=_BATCH_BYTES_MAX,
            max_request_size=4 * _BATCH_BYTES_MAX,
            **security,
        )
        self._buckets: list[list[tuple[bytes, bytes | None]]] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.acknowledged: list[list[range]] = []
        """By partition, the runs of offsets that the broker has acknowledged."""
        self.produced = 0
        """Records acknowledged."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(started(self._producer))
            partitions = len(await self._producer.partitions_for(self._topic))
            self._stack = stack.pop_all()
        self._buckets = [[] for _ in range(partitions)]
        self.acknowledged = [[] for _ in range(partitions)]
        self.partition_of = lru_cache(maxsize=None)(lambda key: (murmur2(key) & 0x7FFFFFFF) % partitions)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for flight in self._flights:
                flight.cancel()
        await self._stack.aclose()

    def add(self, key: bytes, value: bytes | None) -> None:
        """Put a record into the next batch of its partition."""
        self._buckets[self.partition_of(key)].append((key, value))

    async def send(self) -> None:
        """Hand over what was added. Returns before it is acknowledged, unless much is under way."""
        for partition, records in enumerate(self._buckets):
            if records:
                await self._send(partition, records)
                records.clear()
        while len(self._flights) > _FLIGHTS_MAX:
            await asyncio.wait(self._flights, return_when=asyncio.FIRST_COMPLETED)
        self._raise_failure()

    async def flush(self) -> None:
        """Hand over what was added and return when everything is acknowledged."""
        await self.send()
        while self._flights:
            await asyncio.wait(self._flights)
        self._raise_failure()

    async def _send(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        now_ms = time.time_ns() // 1_000_000
        batch = self._producer.create_batch()
        for key, value in records:
            if batch.append(key=key, value=value, timestamp=now_ms) is None:
                await self._launch(batch, partition)
                batch = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=now_ms)
        await self._launch(batch, partition)

    async def _launch(self, batch: Any, partition: int) -> None:
        acknowledged = await self._producer.send_batch(batch, self._topic, partition=partition)
        flight = asyncio.create_task(self._land(acknowledged, partition, batch.record_count()))
        self._flights.add(flight)
        flight.add_done_callback(self._landed)

    async def _land(self, acknowledged: Any, partition: int, records: int) -> None:
        first = (await acknowledged).offset
        self.acknowledged[partition].append(range(first, first + records))
        self.produced += records

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if not flight.cancelled() and flight.exception() is not None:
            self._failure = flight.exception()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
