"""The events that every contender gets: Segment-form JSON, preloaded into a topic before any clock runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from app.embedded import EmbeddedBroker
from app.stream.started import started
from app.topics import create_topics
from schemas.topics import DAY_MS, Topic
from tests.support.kafka import KafkaCluster

SPAN_MS: Final = 600_000
BATCH_RECORDS: Final = 1_000
BATCH_BYTES: Final = 900_000
_IN_FLIGHT_BATCHES: Final = 16

# Name and share; the rest of a message depends on the name.
NAMES: Final = (
    ("Product Viewed", 0.50),
    ("Application Opened", 0.22),
    ("Product Added", 0.15),
    ("Order Completed", 0.05),
    ("Notification Opened", 0.08),
)
CATEGORIES: Final = ("grocery", "produce", "drug", "meat", "deli", "pastry", "garden", "coffee")

KeyValue = tuple[bytes, bytes]


def user_key(number: int) -> bytes:
    """The record key of a user."""
    return b"user-%07d" % number


def events(
    count: int, users: int, seed: int, *, start_ms: int, span_ms: int = SPAN_MS, keys: str = "uniform"
) -> Iterator[KeyValue]:
    """Key and JSON value of `count` events in event-time order.

    Parameters
    ----------
    keys
        ``uniform``, the hardest case for caches: with fewer events than a few times `users`, nearly every event is
        another row. ``zipf``: the user of rank r has a share proportional to 1/r, as real traffic is skewed.
    start_ms, span_ms
        The first event's time, and over how long the events are spread.
    """
    rng = random.Random(seed)
    names = rng.choices([name for name, _ in NAMES], [share for _, share in NAMES], k=count)
    drawn = _users(count, users, rng, keys)
    for number, name in enumerate(names):
        key = user_key(next(drawn))
        category = CATEGORIES[int(rng.random() * len(CATEGORIES))]
        at_ms = start_ms + span_ms * number // count
        yield (
            key,
            (
                f'{{"type":"track","event":"{name}","userId":"{key.decode()}","messageId":"m-{seed}-{number}",'
                f'"timestamp":{at_ms},"properties":{{"category":"{category}",{_more(name, number, rng)}}}}}'
            ).encode(),
        )


def _users(count: int, users: int, rng: random.Random, keys: str) -> Iterator[int]:
    if keys == "uniform":
        return (int(rng.random() * users) for _ in range(count))
    shares = list(itertools.accumulate(1 / rank for rank in range(1, users + 1)))
    return iter(rng.choices(range(users), cum_weights=shares, k=count))


def _more(name: str, number: int, rng: random.Random) -> str:
    if name == "Order Completed":
        return f'"order_id":"o-{number}","revenue":{1 + rng.random() * 90:.2f}'
    if name == "Notification Opened":
        return f'"decisionId":"unknown-{number}"'
    return f'"product_id":"p-{int(rng.random() * 5000)}"'


async def preload(
    bootstrap: str,
    topic: str,
    partitions: int,
    records: Iterator[KeyValue],
    *,
    timestamp_ms: int,
    headers: Sequence[tuple[str, bytes]] = (),
) -> int:
    """Create `topic` and fill it, in large batches, each acknowledged; returns the number of records.

    Keys go to the partition that every Kafka client would choose (murmur2); that is slow in Python, so each key is
    hashed once.
    """
    contract = Topic(
        name=topic, key="user", value="Event (JSON)", partitions="events", cleanup="delete", retention_ms=DAY_MS,
        purpose="benchmark",
    )  # fmt: skip
    await create_topics(bootstrap, partitions, topics=[contract])
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, acks="all")
    async with started(producer):
        return await _fill(producer, topic, list(range(partitions)), records, timestamp_ms, list(headers))


async def _fill(
    producer: AIOKafkaProducer,
    topic: str,
    partitions: list[int],
    records: Iterator[KeyValue],
    timestamp_ms: int,
    headers: list[tuple[str, bytes]],
) -> int:
    choose = DefaultPartitioner()
    partition_of: dict[bytes, int] = {}
    batches: dict[int, Any] = {partition: producer.create_batch() for partition in partitions}
    sent: list[asyncio.Future[Any]] = []
    count = 0
    for key, value in records:
        partition = partition_of.get(key)
        if partition is None:
            partition = partition_of[key] = choose(key, partitions, partitions)
        appended = batches[partition].append(key=key, value=value, timestamp=timestamp_ms, headers=headers)
        assert appended is not None, "a batch of small events outgrew its size"
        count += 1
        if batches[partition].record_count() == BATCH_RECORDS:
            sent.append(await producer.send_batch(batches[partition], topic, partition=partition))
            batches[partition] = producer.create_batch()
            if len(sent) > _IN_FLIGHT_BATCHES:
                await sent.pop(0)
    for partition, batch in batches.items():
        if batch.record_count():
            sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
    return count


async def fill(
    bootstrap: str, topic: str, partitions: int, count: int, users: int, seed: int, *, keys: str = "uniform"
) -> int:
    """`preload` of `count` events of the last ten minutes; returns their number."""
    now_ms = time.time_ns() // 1_000_000
    records = events(count, users, seed, start_ms=now_ms - SPAN_MS, keys=keys)
    return await preload(bootstrap, topic, partitions, records, timestamp_ms=now_ms)


@contextlib.asynccontextmanager
async def broker_at(bootstrap: str, *, kafka: bool = False, brokers: int = 1) -> AsyncIterator[str]:
    """The address of the given broker, or of one that lasts as long as the context: a real Kafka (of so many brokers)
    or an embedded one.
    """
    if bootstrap:
        yield bootstrap
        return
    if kafka:
        # Started in this thread: the kernel ends a child whose parent thread has gone.
        with KafkaCluster(brokers, heap_mb=max(384, 1_024 // brokers), as_shipped=True) as real:
            yield real.bootstrap
        return
    async with EmbeddedBroker() as broker:
        yield broker.bootstrap


def describe(seed: int, *, keys: str = "uniform", **sizes: int) -> dict[str, Any]:
    """What to print about the workload."""
    return {"seed": seed, **sizes, "keys": keys, "mix": dict(NAMES)}
