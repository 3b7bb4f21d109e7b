"""What only Apache Kafka can show: the embedded broker has neither right end offsets, idempotence nor a memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from app.skew import BrokerClock
from app.stream.broadcast import BroadcastReader
from app.topics import check_topics, create_topics
from schemas.topics import BY_NAME, CLOCK, EVENTS, TOPICS, Topic
from tests.support.kafka import KafkaBroker, KafkaUnavailable

pytestmark = pytest.mark.kafka


@pytest.fixture
def own_kafka() -> Iterator[KafkaBroker]:
    """A broker that the test may stop."""
    with KafkaBroker() as running:
        yield running


def registry(prefix: str) -> list[Topic]:
    """The topics of the registry under names of this test's own."""
    return [msgspec.structs.replace(topic, name=prefix + topic.name) for topic in TOPICS]


async def produce(bootstrap: str, topic: str, count: int, partition: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    for number in range(count):
        await producer.send(topic, b"%d" % number, partition=partition)
    await producer.stop()  # flushes


async def read(bootstrap: str, topic: str) -> list[bytes]:
    """All values of partition 0 up to the end offset that the broker reports."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while await consumer.position(partition) < end:
            found = await consumer.getmany(partition, timeout_ms=5_000)
            assert found, f"nothing came between {len(values)} and the end offset {end}"
            values += [record.value for record in found[partition]]
        return values
    finally:
        await consumer.stop()


async def test_an_idempotent_producer_is_served_and_end_offsets_count_records(kafka, unique):
    (topic, *_) = registry(unique)
    await create_topics(kafka, 1, topics=[topic])
    await produce(kafka, topic.name, 250)
    assert await read(kafka, topic.name) == [b"%d" % number for number in range(250)]


async def test_the_registry_is_accepted_and_then_found_well(kafka, unique):
    topics = registry(unique)
    assert set(await create_topics(kafka, 3, topics=topics)) == {topic.name for topic in topics}
    assert await create_topics(kafka, 3, topics=topics) == []
    assert await check_topics(kafka, 3, topics=topics) == []


async def test_a_wrong_partition_count_and_a_wrong_cleanup_policy_are_found(kafka, unique):
    topic = next(topic for topic in registry(unique) if topic.cleanup == "compact" and topic.partitions == "events")
    await create_topics(kafka, 2, topics=[msgspec.structs.replace(topic, cleanup="delete", retention_ms=60_000)])
    problems = [problem.problem for problem in await check_topics(kafka, 3, topics=[topic])]
    assert problems == ["2 partitions; expected 3", "cleanup.policy is delete; expected compact"]


async def test_what_would_be_cleaned_up_too_soon_is_found(kafka, unique):
    topics = [topic for topic in registry(unique) if topic.history_ms or topic.name.endswith(("dead-letters", "clock"))]
    hasty = [msgspec.structs.replace(t, history_ms=0, retention_ms=60_000, stamped=False) for t in topics]
    await create_topics(kafka, 3, topics=hasty)
    found = {(one.topic.removeprefix(unique), one.problem) for one in await check_topics(kafka, 3, topics=topics)}
    assert found == {
        ("catalog", "min.compaction.lag.ms is 0; expected 86400000 or more"),
        ("nudge-profiles-changelog", "min.compaction.lag.ms is 0; expected 3600000 or more"),
        ("nudge-ledger-changelog", "min.compaction.lag.ms is 0; expected 3600000 or more"),
        ("dead-letters", "retention.ms is 60000; expected 604800000 or more"),
        ("nudge-clock", "retention.ms is 60000; expected 172800000 or more"),
        ("nudge-clock", "message.timestamp.type is CreateTime; expected LogAppendTime"),
    }


@pytest.mark.parametrize("ahead_s", [0.0, 7.0, -3_600.0])
async def test_the_broker_tells_its_time(kafka, unique, ahead_s):
    topic = msgspec.structs.replace(BY_NAME[CLOCK], name=unique + CLOCK)
    await create_topics(kafka, 1, topics=[topic])
    asked = BrokerClock({"bootstrap_servers": kafka}, topic=topic.name, wall_s=lambda: time.time() + ahead_s)
    async with asked as clock:
        found = await clock.best_of(3)
    assert found is not None
    assert abs(found.ahead_s - ahead_s) <= found.error_s + 0.01
    assert found.error_s < 1.0


async def test_a_topic_that_keeps_its_producers_time_tells_none(kafka, unique):
    topic = msgspec.structs.replace(BY_NAME[EVENTS], name=unique + EVENTS)
    await create_topics(kafka, 1, topics=[topic])
    async with BrokerClock({"bootstrap_servers": kafka}, topic=topic.name) as clock:
        assert await clock.ask() is None


async def test_a_partition_that_is_added_is_read_from_its_beginning(kafka, unique):
    topic = msgspec.structs.replace(BY_NAME[EVENTS], name=unique + EVENTS)
    await create_topics(kafka, 1, topics=[topic])
    await produce(kafka, topic.name, 20)
    seen: list[bytes | None] = []
    settings = {"bootstrap_servers": kafka, "metadata_max_age_ms": 200}
    reader = BroadcastReader(settings, topic.name, lambda _key, value, _offset: seen.append(value))
    await reader.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_partitions({topic.name: NewPartitions(2)})
    await admin.close()
    await produce(kafka, topic.name, 10, partition=1)
    all_seen = 0.0
    async with asyncio.timeout(20.0):
        while not all_seen or reader.as_of < all_seen:
            await asyncio.sleep(0.05)
            all_seen = all_seen or (len(seen) == 30) * time.monotonic()
    await reader.stop()
    assert seen == [b"%d" % number for number in (*range(20), *range(10))]


@pytest.mark.slow
async def test_a_broker_that_was_away_comes_back_where_it_was_with_what_it_held(own_kafka, unique):
    (topic, *_) = registry(unique)
    address = own_kafka.bootstrap
    await create_topics(address, 1, topics=[topic])
    await produce(address, topic.name, 50)
    own_kafka.stop()
    own_kafka.start()
    assert own_kafka.bootstrap == address
    assert await read(address, topic.name) == [b"%d" % number for number in range(50)]


def test_a_missing_java_is_said_and_not_guessed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(KafkaUnavailable, match=r"Java 17 or later is not installed"):
        KafkaBroker().start()
