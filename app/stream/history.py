"""Reads one partition of a topic again from its beginning, beside the consumer group and without disturbing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.stream.committed import READ_COMMITTED, readable_end
from app.stream.started import started

_FETCH_BYTES: Final = 512 * 1024
_RECORDS_MAX: Final = 512


class HistoryReader:
    """The records that are still there, oldest first, as far as it is told to read.

    Parameters
    ----------
    settings
        Connection settings for the consumer that `connect` makes.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topic: str,
        partition: int,
        *,
        connect: Callable[..., Any] = AIOKafkaConsumer,
    ) -> None:
        self._tp = TopicPartition(topic, partition)
        self._consumer = connect(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=100,
            isolation_level=READ_COMMITTED,
            **settings,
        )
        self.next_offset = 0
        """Everything before it has been read, or is no longer there."""
        self.first: tuple[int, int] | None = None
        """Offset and timestamp (wall ms) of the oldest record."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(started(self._consumer))
            self._consumer.assign([self._tp])
            await self._consumer.seek_to_beginning(self._tp)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    def skip_to(self, offset: int) -> None:
        """Begin there, or with the oldest record if that is newer."""
        self._consumer.seek(self._tp, offset)

    async def peek(self) -> tuple[int, int] | None:
        """Offset and timestamp (wall ms) of the oldest record; None when there is none."""
        record = await self._next()
        return None if record is None else (record.offset, record.timestamp)

    async def at(self, offset: int) -> Any | None:
        """The record at an offset; None where there is none, or none any more."""
        self.skip_to(offset)
        record = await self._next()
        return record if record is not None and record.offset == offset else None

    async def _next(self) -> Any | None:
        while True:
            fetched = await self._consumer.getmany(self._tp, timeout_ms=200, max_records=1)
            for record in fetched.get(self._tp, ()):
                return record
            end = readable_end(self._consumer, self._tp)
            if end is not None and await self._consumer.position(self._tp) >= end:
                return None

    async def read_to(self, offset: int) -> AsyncIterator[Sequence[Any]]:
        """Give the records before `offset`, which must have been produced, some at a time."""
        while self.next_offset < offset:
            fetched = await self._consumer.getmany(self._tp, timeout_ms=200, max_records=_RECORDS_MAX)
            records = [record for record in fetched.get(self._tp, ()) if record.offset < offset]
            if records:
                self.first = self.first or (records[0].offset, records[0].timestamp)
                self.next_offset = records[-1].offset + 1
                yield records
            if len(records) < len(fetched.get(self._tp, ())):  # those beyond belong to the next call
                self._consumer.seek(self._tp, offset)
                self.next_offset = offset
            elif self._consumer.highwater(self._tp) is not None:
                # Past what transactions and retention have left out, too.
                self.next_offset = max(self.next_offset, await self._consumer.position(self._tp))
