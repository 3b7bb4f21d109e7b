"""The sender as a process on a broker: decisions in, lines and receipts out, killed on the way."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.children import Child
from app.embedded import EmbeddedBroker, free_port
from app.topics import create_topics
from schemas.decisions import Decision, decision_headers, encode_decision
from schemas.events import Event, decode_event, encode_event
from schemas.topics import DEAD_LETTERS, DECISIONS, EVENTS, LEDGER_CHANGELOG
from tables.ledger import State, decode_entry
from tests.support.broker import embedded  # noqa: F401 - fixture
from tests.support.sender import decision

pytestmark = pytest.mark.broker

PARTITIONS = 2


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 40.0) -> None:
    """Wait until `condition` holds; fail naming `what`."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        await asyncio.sleep(0.05)


class Site:
    """A broker with topics, a sender's settings, and eyes on the topics."""

    def __init__(self, bootstrap: str, directory: Path) -> None:
        self.bootstrap = bootstrap
        self.output = directory / "sent.jsonl"
        self.output.touch()
        self.port = free_port()
        self._directory = directory
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap)

    async def start(self) -> None:
        await create_topics(self.bootstrap, PARTITIONS, 1)
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    @contextmanager
    def sender(self, data: str = "data") -> Iterator[Child]:
        """A sender process; killed at the end if it still runs."""
        settings = {
            "NUDGE_BROKER": self.bootstrap,
            "NUDGE_PROFILE": "dev",
            "NUDGE_IDEMPOTENT": "false",
            "NUDGE_PARTITIONS": str(PARTITIONS),
            "NUDGE_DATA_DIR": str(self._directory / data),
            "NUDGE_HTTP_PORT": str(self.port),
            "NUDGE_SENDER_OUTPUT": str(self.output),
        }
        child = Child("sender", [sys.executable, "-m", "app.cli", "sender"], env=os.environ | settings)
        try:
            yield child
        finally:
            child.kill()

    async def ready(self, child: Child) -> None:
        async def answers() -> bool:
            assert child.returncode is None, child.log_tail()
            return await asyncio.to_thread(self._ready)

        await eventually(answers, "the sender is ready")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric of the running sender, 0 if it has none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            text = response.read().decode()
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        found = re.search(rf"^{re.escape(name)}\{{{re.escape(wanted)}\}} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def decide(self, decisions: Sequence[Decision]) -> None:
        """Produce decisions to the partition of their user."""
        for made in decisions:
            await self.put(DECISIONS, made.user, encode_decision(made), decision_headers(made))
        await self._producer.flush()

    async def put(self, topic: str, user: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        partition = int(user[1:]) % PARTITIONS
        await self._producer.send(topic, value, key=user.encode(), partition=partition, headers=list(headers))

    def lines(self) -> Counter[str]:
        """How often each decision id was delivered."""
        whole = self.output.read_bytes().rpartition(b"\n")[0]
        return Counter(orjson.loads(line)["id"] for line in whole.splitlines())

    async def read(self, topic: str) -> list[tuple[int, bytes | None, bytes | None, dict[str, bytes]]]:
        """Everything the topic holds: partition, key, value, headers."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, p) for p in range(1 if topic == DEAD_LETTERS else PARTITIONS)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            found = []
            for tp in partitions:
                while await consumer.position(tp) < ends[tp]:
                    fetched = await consumer.getmany(tp, timeout_ms=200)
                    records = (each for records in fetched.values() for each in records)
                    found.extend((each.partition, each.key, each.value, dict(each.headers)) for each in records)
            return found
        finally:
            await consumer.stop()

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
        wanted = {made.id for made in decisions}

        async def told() -> bool:
            return wanted <= set(await self.receipts())

        await eventually(told, "every decision has a receipt")


@pytest.fixture
async def site(embedded: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Site]:  # noqa: F811
    made = Site(embedded.bootstrap, tmp_path)
    await made.start()
    yield made
    await made.stop()


def fresh(n: int, **changes: object) -> Decision:
    """A decision that has not expired by the system's clock."""
    return decision(n, expires_ms=time.time_ns() // 1_000_000 + 3_600_000, **changes)


async def test_decisions_are_delivered_and_told_once_and_the_rest_is_not(site: Site) -> None:
    sends = [fresh(n) for n in range(200)]
    opted_out, expired = fresh(300), decision(301, expires_ms=1)
    suppressed = decision(302, action="suppress", reason="quiet_hours")
    stop = Event(type="track", event="Notifications Disabled", user_id=opted_out.user, message_id="m1")
    await site.put(EVENTS, opted_out.user, encode_event(stop))
    await site.decide([*sends, opted_out, expired, suppressed, *sends[:50]])
    await site.put(DECISIONS, "u1", b"{ not json")
    with site.sender() as child:
        await site.ready(child)
        await site.all_told([*sends, opted_out, expired])

        async def buried() -> bool:
            return len(await site.read(DEAD_LETTERS)) == 1

        await eventually(buried, "the malformed record is a dead letter")
        assert site.metric("nudge_sends_total", provider="console", outcome="sent") == 200
    receipts = await site.receipts()
    assert site.lines() == {made.id: 1 for made in sends}
    assert all(receipts[made.id] == {(int(made.user[1:]) % 2, f"{made.id}:sent", "")} for made in sends)
    assert receipts[opted_out.id] == {(0, f"{opted_out.id}:failed", "opted_out")}
    assert receipts[expired.id] == {(1, f"{expired.id}:failed", "expired")}
    assert suppressed.id not in receipts
    [(_, key, value, headers)] = await site.read(DEAD_LETTERS)
    assert (key, value, headers["nudge_reason"]) == (b"u1", b"{ not json", b"malformed_json")


async def test_a_sender_that_has_nothing_to_do_is_ready(site: Site) -> None:
    with site.sender() as child:
        await site.ready(child)


@pytest.mark.parametrize("data", ["data", "elsewhere"])
async def test_a_killed_sender_sends_promotional_at_most_once_and_transactional_at_least_once(
    site: Site, data: str
) -> None:
    """The second life has the first one's disk, or (``elsewhere``) an empty one and the changelog only."""
    made = [fresh(n, transactional=n % 3 == 0) for n in range(3_000)]
    with site.sender() as child:
        await site.ready(child)
        feeding = asyncio.create_task(site.decide(made))

        async def under_way() -> bool:
            return sum(site.lines().values()) > 500

        await eventually(under_way, "deliveries are under way")
        child.kill()
        await feeding
    before = site.lines()
    assert 0 < len(before) < len(made), "the kill came too early or too late to prove anything"
    with site.sender(data) as child:
        await site.ready(child)
        await site.all_told(made)
    lines, receipts = site.lines(), await site.receipts()
    ledger = {key: decode_entry(value) for _, key, value, _ in await site.read(LEDGER_CHANGELOG) if key and value}
    repeated = {each.id for each in made if lines[each.id] > 1}
    assert not repeated & {each.id for each in made if not each.transactional}
    assert all(lines[each.id] >= 1 for each in made if each.transactional)
    assert all(len(receipts[each.id]) == 1 for each in made)
    for each in made:
        state = ledger[each.id.encode()].state
        [(_, message_id, reason)] = receipts[each.id]
        if state is State.SENT:
            assert lines[each.id] >= 1
            assert message_id == f"{each.id}:sent"
        else:
            assert (state, each.transactional, reason) == (State.UNKNOWN, False, "unknown")


async def test_a_sender_that_is_told_to_stop_finishes_what_it_began(site: Site) -> None:
    made = [fresh(n) for n in range(2_000)]
    with site.sender() as child:
        await site.ready(child)
        feeding = asyncio.create_task(site.decide(made))

        async def under_way() -> bool:
            return sum(site.lines().values()) > 200

        await eventually(under_way, "deliveries are under way")
        await asyncio.to_thread(child.stop)
        await feeding
        assert child.returncode == 0, child.log_tail()
    with site.sender() as child:
        await site.ready(child)
        await site.all_told(made)
    assert site.lines() == {each.id: 1 for each in made}
    receipts = await site.receipts()
    assert all(receipts[each.id] == {(int(each.user[1:]) % 2, f"{each.id}:sent", "")} for each in made)
