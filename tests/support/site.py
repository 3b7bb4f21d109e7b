"""A broker with fresh topics, processes of ours on it, and eyes on the topics."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client.parser import text_string_to_metric_families

from app.children import Child
from app.embedded import EmbeddedBroker, free_port
from app.topics import create_topics, partitions_of
from schemas.decisions import Decision, decision_headers, encode_decision
from schemas.events import Event, decode_event, encode_event
from schemas.topics import BY_NAME, DECISIONS, EVENTS, TOPICS
from tests.support.kafka import KafkaCluster

__all__ = ["Site", "eventually", "site"]

PARTITIONS = 2
CLIENT = "site"
"""How the test's own clients call themselves: a proxy with faults spares them."""
POLICIES = Path(__file__).parents[1] / "policies"


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 60.0) -> None:
    """Wait until `condition` holds; fail naming `what`. On a machine with more work than cores the limit is longer."""
    began = time.monotonic()
    while not await condition():
        limit_s = timeout_s * _crowding()
        assert time.monotonic() < began + limit_s, f"not within {limit_s:.0f} s: {what}"
        await asyncio.sleep(0.05)


def _crowding() -> float:
    """How many processes want each core at the moment: between 1 and 4."""
    return min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


class Site:
    """Everything a test of processes needs.

    Parameters
    ----------
    real
        Whether the broker is Apache Kafka (then producers are idempotent, and topics are deleted first).

    Attributes
    ----------
    proxy
        The `tests.support.proxy.Proxy` before the broker, where there is one.
    cluster
        The `tests.support.kafka.KafkaCluster`, where there are several brokers.
    """

    def __init__(
        self,
        bootstrap: str,
        directory: Path,
        *,
        real: bool,
        partitions: int = PARTITIONS,
        cluster: KafkaCluster | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.real = real
        self.partitions = partitions
        self.directory = directory
        self.proxy: Any = None
        self.cluster = cluster
        self.output = directory / "sent.jsonl"
        self.output.touch()
        self.run = uuid.uuid4().hex[:8]
        self._ports: dict[int, int] = {}
        self._logs: dict[int, Path] = {}
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, client_id=CLIENT, acks="all", linger_ms=5)

    async def start(self) -> None:
        if self.real:
            await self._delete_topics()
        await create_topics(self.bootstrap, self.partitions, self.cluster.replicas if self.cluster else 1)
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def _delete_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            names = {topic.name for topic in TOPICS} & set(await admin.list_topics())
            if names:
                await admin.delete_topics(list(names))

            async def gone() -> bool:
                return not names & set(await admin.list_topics())

            await eventually(gone, "the topics of an earlier test are deleted")
        finally:
            await admin.close()

    # -- processes

    @contextmanager
    def process(
        self,
        command: str,
        name: str = "",
        module: str = "app.cli",
        *,
        python: Sequence[str] = (sys.executable,),
        **settings: str,
    ) -> Iterator[Child]:
        """`nudge COMMAND` as a process with a data directory called `name`; killed at the end if it still runs.

        `module` is another program with the same settings, `python` another build's.
        """
        port = free_port()
        environment = self.environment(name or command) | {"NUDGE_HTTP_PORT": str(port)} | settings
        log_path = self.directory / f"{name or command}-{port}.log"
        arguments = [*python, "-m", module, command]
        child = Child(name or command, arguments, env=os.environ | environment, log_path=log_path)
        self._ports[child.pid], self._logs[child.pid] = port, log_path
        try:
            yield child
        finally:
            child.kill()

    def environment(self, name: str) -> dict[str, str]:
        """The settings of a process with a data directory called `name`."""
        return {
            "NUDGE_BROKER": self.bootstrap,
            "NUDGE_PROFILE": "dev",
            "NUDGE_APP_ID": f"worker-{self.run}",
            "NUDGE_SENDER_ID": f"sender-{self.run}",
            "NUDGE_IDEMPOTENT": str(self.real).lower(),
            "NUDGE_PARTITIONS": str(self.partitions),
            "NUDGE_DATA_DIR": str(self.directory / name),
            "NUDGE_SENDER_OUTPUT": str(self.output),
        }

    async def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """`nudge ARGUMENTS`, run to its end."""
        command = [sys.executable, "-m", "app.cli", *arguments]
        env = os.environ | self.environment("command") | settings
        return await asyncio.to_thread(
            subprocess.run, command, env=env, capture_output=True, text=True, timeout=120, check=False
        )

    def sender(self, data: str = "data") -> Any:
        """A sender process."""
        return self.process("sender", data)

    def worker(self, name: str = "worker", policy: str = "echo.yaml", **settings: str) -> Any:
        """A worker process."""
        return self.process("worker", name, NUDGE_POLICY=str(POLICIES / policy), **settings)

    async def ready(self, child: Child) -> None:
        async def answers() -> bool:
            assert child.returncode is None, child.log_tail()
            return await asyncio.to_thread(self.status, child) == 200

        await eventually(answers, f"the {child.name} is ready")

    def port(self, child: Child) -> int:
        """The port of a process's health endpoint."""
        return self._ports[child.pid]

    def log(self, child: Child) -> str:
        """Everything that the process wrote, also when it has ended."""
        return self._logs[child.pid].read_text(errors="replace")

    def status(self, child: Child, path: str = "/readyz") -> int:
        """The HTTP status of a health endpoint; 0 when nobody answers."""
        return self.get(child, path)[0]

    def get(self, child: Child, path: str) -> tuple[int, str]:
        """Status and body; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[child.pid]}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except (urllib.error.URLError, OSError):
            return 0, ""

    def metric(self, child: Child, name: str, **labels: str) -> float:
        """The value of a metric of a running process, 0 if it has none; without labels that of all of them together."""
        text = self.get(child, "/metrics")[1]
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        braces = rf"\{{{re.escape(wanted)}\}}" if labels else r"(?:\{.*\})?"
        return sum(map(float, re.findall(rf"^{re.escape(name)}{braces} (\S+)$", text, re.MULTILINE)))

    def totals(self, child: Child) -> dict[str, float]:
        """Every metric of a running process by name, over all labels; none of one that does not answer."""
        status, text = self.get(child, "/metrics")
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text) if status == 200 else ():
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    # -- topics

    async def decide(self, decisions: Sequence[Decision]) -> None:
        """Produce decisions to the partition of their user."""
        for made in decisions:
            await self.put(DECISIONS, made.user, encode_decision(made), decision_headers(made))
        await self.flush()

    async def happen(self, events: Sequence[Event]) -> None:
        """Produce events, acknowledged."""
        for event in events:
            user = event.user_id or event.anonymous_id or ""
            await self.put(EVENTS, user, encode_event(event))
        await self.flush()

    async def put(
        self, topic: str, user: str, value: bytes, headers: Sequence[tuple[str, bytes]] = (), key: bytes | None = None
    ) -> None:
        """Queue a record in the partition of `user`, a name that ends in a number."""
        partition = int(re.findall(r"\d+$", user)[0]) % self.partitions
        key = user.encode() if key is None else key
        await self._producer.send(topic, value, key=key, partition=partition, headers=list(headers))

    async def put_one(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Queue a record of a topic with one partition."""
        await self._producer.send(topic, value, key=key, partition=0)

    async def repeat(self, record: Any) -> None:
        """Queue a record again as it was, in its partition of the same topic."""
        await self._producer.send(
            record.topic, record.value, key=record.key, partition=record.partition, headers=list(record.headers)
        )

    async def happen_by_key(self, events: Iterable[Event]) -> None:
        """Produce events as every Kafka client does: to the partition that the key's hash says."""
        for event in events:
            await self._producer.send(EVENTS, encode_event(event), key=(event.user_id or "").encode())
        await self.flush()

    async def flush(self) -> None:
        """Await every acknowledgement."""
        await self._producer.flush()

    async def records(self, topic: str) -> list[Any]:
        """Every record that the topic holds, by partition and offset."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, client_id=CLIENT, enable_auto_commit=False, fetch_max_wait_ms=50
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, p) for p in range(partitions_of(BY_NAME[topic], self.partitions))]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            found: list[Any] = []
            while True:
                fetched = await consumer.getmany(timeout_ms=100)
                found.extend(record for records in fetched.values() for record in records)
                # The high watermark of a fetch is right on every broker; ListOffsets is not on the embedded one.
                ends = [(tp, consumer.highwater(tp)) for tp in partitions]
                if all([end is not None and await consumer.position(tp) >= end for tp, end in ends]):
                    return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            await consumer.stop()

    async def read(self, topic: str) -> list[tuple[int, bytes | None, bytes | None, dict[str, bytes]]]:
        """Everything the topic holds: partition, key, value, headers."""
        return [(r.partition, r.key, r.value, dict(r.headers)) for r in await self.records(topic)]

    def lines(self) -> Counter[str]:
        """How often each decision id was delivered."""
        whole = self.output.read_bytes().rpartition(b"\n")[0]
        return Counter(orjson.loads(line)["id"] for line in whole.splitlines())

    async def receipts(self) -> dict[str, set[tuple[int, str | None, str]]]:
        """By decision id: the distinct receipts as (partition, message id, reason)."""
        found: dict[str, set[tuple[int, str | None, str]]] = {}
        for partition, key, value, _ in await self.read(EVENTS):
            event = decode_event(value, key)
            assert isinstance(event, Event), event
            if "decisionId" in event.properties:
                receipt = (partition, event.message_id, event.properties.get("reason", ""))
                found.setdefault(event.properties["decisionId"], set()).add(receipt)
        return found

    async def all_told(self, decisions: Sequence[Decision]) -> None:
        """Wait until every decision has a receipt."""
        wanted = {made.id for made in decisions}

        async def told() -> bool:
            return wanted <= set(await self.receipts())

        await eventually(told, "every decision has a receipt")


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A site on the embedded broker and, where there is one, on real Kafka."""
    found = request.getfixturevalue(request.param)
    real = not isinstance(found, EmbeddedBroker)
    made = Site(str(found) if real else found.bootstrap, tmp_path, real=real)
    await made.start()
    yield made
    await made.stop()
