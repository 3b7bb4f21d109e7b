"""A topic read to where it ends now, from its beginning or only its newest records, by partitions, for commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.stream.committed import READ_COMMITTED, readable_end
from app.stream.history import HistoryReader
from app.stream.started import started


def read_whole(settings: Mapping[str, Any], topic: str) -> Iterator[Sequence[Any]]:
    """Records, some at a time, in the order of partitions and offsets. Raises `aiokafka.errors.KafkaError`."""
    return _read_from(settings, topic, lambda _end: 0)


def read_newest(settings: Mapping[str, Any], topic: str, count: int) -> Iterator[Sequence[Any]]:
    """As `read_whole`, of each partition the `count` newest offsets."""
    return _read_from(settings, topic, lambda end: max(0, end - count))


def _read_from(settings: Mapping[str, Any], topic: str, begin: Callable[[int], int]) -> Iterator[Sequence[Any]]:
    with asyncio.Runner() as runner:
        for partition, end in sorted(runner.run(ends(settings, topic)).items()):
            reading = _read(settings, topic, partition, begin(end), end)
            while (records := runner.run(_next(reading))) is not None:
                yield records


async def _next(reading: AsyncGenerator[Sequence[Any]]) -> Sequence[Any] | None:
    return await anext(reading, None)


async def _read(
    settings: Mapping[str, Any], topic: str, partition: int, begin: int, end: int
) -> AsyncGenerator[Sequence[Any]]:
    async with HistoryReader(settings, topic, partition) as reader:
        if begin:
            reader.skip_to(begin)
        async for records in reader.read_to(end):
            yield records


async def ends(settings: Mapping[str, Any], topic: str) -> dict[int, int]:
    """Up to where each partition can be read, from a fetch: it is exact on every broker."""
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, auto_offset_reset="earliest", isolation_level=READ_COMMITTED, **settings
    )
    async with started(consumer):
        await consumer._client.force_metadata_update()
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any(consumer.highwater(tp) is None for tp in partitions):
            await consumer.getmany(timeout_ms=100, max_records=1)
        return {tp.partition: int(readable_end(consumer, tp) or 0) for tp in partitions}
