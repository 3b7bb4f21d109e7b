"""What a consumer group has committed: read, and written, beside its members."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata


class Commit(NamedTuple):
    """An offset, and what the commit carries: Kafka's metadata of it."""

    offset: int
    note: str = ""


async def read_commits(
    settings: Mapping[str, Any], group: str, topic: str, partitions: Iterable[int]
) -> dict[int, Commit]:
    """Of partitions where the group has committed. Raises `aiokafka.errors.KafkaError`."""
    places = [TopicPartition(topic, partition) for partition in partitions]
    async with _outsider(settings, group) as consumer:
        found = await consumer._coordinator.fetch_committed_offsets(places)
    return {tp.partition: Commit(at.offset, at.metadata or "") for tp, at in found.items()}


async def write_commit(settings: Mapping[str, Any], group: str, topic: str, partition: int, commit: Commit) -> None:
    """Commit for a group that has no members now. Raises `aiokafka.errors.KafkaError`."""
    place = TopicPartition(topic, partition)
    async with _outsider(settings, group) as consumer:
        consumer.assign([place])
        await consumer.commit({place: OffsetAndMetadata(*commit)})


@asynccontextmanager
async def _outsider(settings: Mapping[str, Any], group: str) -> AsyncIterator[Any]:
    """A consumer of the group that joins nothing, as it subscribes to nothing."""
    consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **settings)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
