"""Reading whole topics, outside of any consumer group, to their real end.

The end of a partition is taken from the high watermark of a fetch, never from ListOffsets, which the embedded broker
answers wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.stream.started import started


class TopicReader:
    """All records of some topics from the first offset on, or only those that are new.

    Parameters
    ----------
    topics
        Existing topics; their partitions are those at the start.
    only_new
        Begin at the end. (The embedded broker gives an end that is a little early: some records come again.)
    security
        Passed to aiokafka: `security_protocol`, `ssl_context`, `sasl_*`.
    """

    def __init__(self, bootstrap: str, topics: Sequence[str], *, only_new: bool = False, **security: Any) -> None:
        self._topics = topics
        self._only_new = only_new
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=400,
            fetch_max_bytes=4 << 20,
            max_partition_fetch_bytes=1 << 20,
            **security,
        )
        self._partitions: list[TopicPartition] = []
        self._bootstrap = bootstrap
        self._security = security
        self._offsets: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(started(self._consumer))
            await self._place()
            self._exit = stack.pop_all()
        return self

    async def _place(self) -> None:
        for topic in self._topics:
            await self._consumer._client._wait_on_metadata(topic)
            numbers = self._consumer.partitions_for_topic(topic) or set()
            self._partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        self._consumer.assign(self._partitions)
        if self._only_new:
            await self._consumer.seek_to_end()
            for partition in self._partitions:  # settles the offsets now, not at the first read
                await self._consumer.position(partition)
        else:
            for partition in self._partitions:
                self._consumer.seek(partition, self._offsets.get(partition, 0))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def read(self, wait_ms: int = 50, records_max: int = 2000) -> list[Any]:
        """Records that have arrived, in order within a partition; empty when none came in `wait_ms`."""
        fetched = await self._consumer.getmany(timeout_ms=wait_ms, max_records=records_max)
        return [record for records in fetched.values() for record in records]

    async def at_end(self) -> bool:
        """Whether every partition has been read to the high watermark of its newest fetch.

        That fetch may be older than the newest records, so True means the end only where nothing was written since
        this reader started: see `successor`. A partition that has not been fetched yet is not at its end.
        """
        for partition in self._partitions:
            end = self._consumer.highwater(partition)
            if end is None or await self._consumer.position(partition) < end:
                return False
        return True

    async def successor(self) -> TopicReader:
        """A reader, not started, that goes on where this one stands.

        Start it when nobody writes any more: all its fetches are then newer than the last record, so it knows the
        real end.
        """
        reader = TopicReader(self._bootstrap, self._topics, **self._security)
        for partition in self._partitions:
            reader._offsets[partition] = await self._consumer.position(partition)
        return reader
