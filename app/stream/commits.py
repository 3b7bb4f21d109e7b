"""What a consumer group has committed: read, and written, beside its members; and what a commit says beside the offset.

An offset means something in one log only. Where no row remembers what it has seen (`app.stream.replays`), the commit
itself does: a digest of the record before it. If another record stands there at the next start, the topic was mirrored,
or a broker lost its end and it grew beyond it again; what stands before the offset then has not been read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from app.stream.committed import READ_COMMITTED, readable_end
from app.stream.started import started

_FETCH_BYTES: Final = 64 << 10


class Commit(NamedTuple):
    """An offset, and what the commit carries: Kafka's metadata of it."""

    offset: int
    note: str = ""


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata of a commit: a digest of the record before the offset, and what the app adds."""

    last: str = ""
    app: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Note).decode


def encode_note(last: str, app: str) -> str:
    """As Kafka's metadata; nothing where there is nothing to say."""
    return _encode(Note(last, app)).decode() if last or app else ""


def decode_note(text: str) -> Note:
    """What somebody else has written there says nothing."""
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        return Note()


def digest(record: Any) -> str:
    """Which record it is, whatever its offset: 64 bits of its time, key and value."""
    key, value = record.key or b"", record.value or b""
    head = b"%d %d %d " % (record.timestamp, len(key), len(value))
    return blake2b(head + key + value, digest_size=8).hexdigest()


class Look(NamedTuple):
    """What stands at the offset of a partition that was asked for, if anything does, and the offset of its end."""

    record: Any | None
    end: int


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
    async with started(AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **settings)) as consumer:
        yield consumer


async def look(settings: Mapping[str, Any], topic: str, offsets: Mapping[int, int]) -> dict[int, Look]:
    """What stands at these offsets or next, and where the partitions end, with what open transactions have written.

    Apache Kafka goes on with the oldest record where an offset is out of range, so look at the record's own.
    """
    if not offsets:
        return {}
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=_FETCH_BYTES,
        isolation_level=READ_COMMITTED,
        **settings,
    )
    found: dict[int, Look] = {}
    async with started(consumer):
        places = {partition: TopicPartition(topic, partition) for partition in offsets}
        consumer.assign(list(places.values()))
        for partition, tp in places.items():
            consumer.seek(tp, offsets[partition])
        while len(found) < len(places):
            fetched = await consumer.getmany(timeout_ms=100)
            for partition, tp in places.items():
                if partition in found or (end := consumer.highwater(tp)) is None:
                    continue
                record = next(iter(fetched.get(tp, ())), None)
                if record is not None or await consumer.position(tp) >= (readable_end(consumer, tp) or 0):
                    found[partition] = Look(record, end)
    return found
