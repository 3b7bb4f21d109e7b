"""The newest records of a topic, looked through for one user or one decision: bounded in records and in time.

The end of a partition is the high watermark of a fetch and its beginning is counted back from there. Offsets for times
would be the other way, and the embedded broker answers those wrongly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import murmur2

from app.stream.committed import READ_COMMITTED, readable_end
from app.stream.started import started

RECORDS_MAX: Final = 100_000
SECONDS_MAX: Final = 10.0
FOUND_MAX: Final = 500


class Found(msgspec.Struct):
    """What a scan brought.

    Parameters
    ----------
    records
        That matched, by partition and offset; at most `FOUND_MAX`, the newest.
    scanned
        How many were looked at.
    whole
        Whether that was all that the topic holds since the instant asked for.
    """

    records: list[Any] = []
    scanned: int = 0
    whole: bool = True


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's default partitioner puts a key."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


async def scan(
    client_settings: dict[str, Any],
    topic: str,
    matches: Callable[[Any], bool],
    *,
    partition: int | None = None,
    key: bytes | None = None,
    since_ms: int = 0,
    records_max: int = RECORDS_MAX,
    seconds_max: float = SECONDS_MAX,
) -> Found:
    """Look through the newest `records_max` records of a topic, or of one partition of it.

    Parameters
    ----------
    matches
        Whether a record is wanted; called with every record that is looked at.
    partition, key
        Only this partition, or only the one of this key (by murmur2); all when neither is given.
    since_ms
        Records with an older Kafka timestamp are passed by.
    records_max, seconds_max
        Where to stop. For several partitions `records_max` is shared out.

    Raises
    ------
    aiokafka.errors.KafkaError
        When the broker cannot be reached.
    """
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
        isolation_level=READ_COMMITTED,
        **client_settings,
    )
    deadline = time.monotonic() + seconds_max
    async with started(consumer):
        await consumer._client._wait_on_metadata(topic)
        numbers = sorted(consumer.partitions_for_topic(topic) or ())
        if partition is None and key is not None and numbers:
            partition = partition_of(key, len(numbers))
        wanted = [TopicPartition(topic, number) for number in numbers if partition in (None, number)]
        found = Found()
        share = max(1, records_max // max(1, len(wanted)))
        for tp in wanted:
            await _scan_partition(consumer, tp, matches, since_ms, share, deadline, found)
        found.records = found.records[-FOUND_MAX:]
        return found


async def _scan_partition(
    consumer: AIOKafkaConsumer,
    tp: TopicPartition,
    matches: Callable[[Any], bool],
    since_ms: int,
    records_max: int,
    deadline: float,
    found: Found,
) -> None:
    consumer.assign([tp])
    consumer.seek(tp, 0)
    records = await _fetch(consumer, deadline)
    end = readable_end(consumer, tp)
    if end is None:
        found.whole = False
        return
    if end > records_max and (not records or records[0].offset < end - records_max):
        # What the first fetch brought is too old; whether anything between is wanted, its time says.
        consumer.seek(tp, end - records_max)
        records = await _fetch(consumer, deadline)
        found.whole = found.whole and bool(records) and records[0].timestamp < since_ms
    while True:
        for record in records:
            if record.offset >= end:
                break
            found.scanned += 1
            if record.timestamp >= since_ms and matches(record):
                found.records.append(record)
        if await consumer.position(tp) >= end:
            return
        if time.monotonic() > deadline:
            found.whole = False
            return
        records = await _fetch(consumer, deadline)


async def _fetch(consumer: AIOKafkaConsumer, deadline: float) -> Sequence[Any]:
    """The next records of the one partition that is assigned; empty at its end."""
    while True:
        fetched = await consumer.getmany(timeout_ms=200)
        for records in fetched.values():
            return list(records)
        (tp,) = consumer.assignment()
        end = readable_end(consumer, tp)
        if (end is not None and await consumer.position(tp) >= end) or time.monotonic() > deadline:
            return ()
