"""A topic read from its beginning to where it ends now, partition by partition, for commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.stream.history import HistoryReader


def read_whole(settings: Mapping[str, Any], topic: str) -> Iterator[Sequence[Any]]:
    """Records, some at a time, in the order of partitions and offsets. Raises `aiokafka.errors.KafkaError`."""
    with asyncio.Runner() as runner:
        for partition, end in sorted(runner.run(_ends(settings, topic)).items()):
            reading = _read(settings, topic, partition, end)
            while (records := runner.run(_next(reading))) is not None:
                yield records


async def _next(reading: AsyncGenerator[Sequence[Any]]) -> Sequence[Any] | None:
    return await anext(reading, None)


async def _read(settings: Mapping[str, Any], topic: str, partition: int, end: int) -> AsyncGenerator[Sequence[Any]]:
    async with HistoryReader(settings, topic, partition) as reader:
        async for records in reader.read_to(end):
            yield records


async def _ends(settings: Mapping[str, Any], topic: str) -> dict[int, int]:
    """The high watermark of each partition, from a fetch: it is exact on every broker."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="earliest", **settings)
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any(consumer.highwater(tp) is None for tp in partitions):
            await consumer.getmany(timeout_ms=100, max_records=1)
        return {tp.partition: int(consumer.highwater(tp)) for tp in partitions}
    finally:
        await consumer.stop()
