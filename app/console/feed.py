"""Following the topics from a bounded number of records back, gently: a console must not cost what a worker does.

No consumer group and no commits. The end of a partition is the high watermark of a fetch, see docs/embedded-broker.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from app.console.tally import Tally
from app.stream.started import started
from schemas.topics import DECISIONS, MODELS, OUTCOMES, POLICY, SEGMENTS

log = structlog.get_logger(__name__)

BACK_RECORDS: Final = {DECISIONS: 50_000, SEGMENTS: 20_000, OUTCOMES: 20_000, MODELS: 100, POLICY: 500}
"""How far back the console looks when it starts, by topic and partition."""
PAUSE_S: Final = 0.4
RECORDS_MAX: Final = 5_000
RETRY_S: Final = 3.0
LOOK_S: Final = 20.0
"""After this long it looks for topics and partitions that were added."""


class TopicFeed:
    """Feeds a tally until it is stopped. `problem` says why nothing comes, empty when all is well."""

    def __init__(self, client_settings: Mapping[str, Any], tally: Tally, *, look_s: float = LOOK_S) -> None:
        self._settings = dict(client_settings)
        self._look_s = look_s
        self._tally = tally
        self._take: dict[str, Callable[[Any], None]] = {
            DECISIONS: lambda record: tally.decision(record.value, record.timestamp),
            SEGMENTS: lambda record: tally.membership(record.value),
            OUTCOMES: lambda record: tally.outcome(record.value),
            MODELS: lambda record: tally.snapshot(record.value),
            POLICY: lambda record: tally.applied(record.key, record.value),
        }
        self.problem = "connecting"
        self.behind = 0
        self._positions: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Read for ever; a broker that is away is tried again."""
        while True:
            try:
                await self._follow()
            except (KafkaError, OSError) as exc:
                if self.problem in ("", "connecting"):
                    log.warning("console_feed_retry", error=type(exc).__name__)
                self.problem = f"no Kafka broker answers ({type(exc).__name__})"
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=400,
            max_partition_fetch_bytes=1 << 20,
            **self._settings,
        )
        async with started(consumer):
            partitions, looked_s = await self._assign(consumer, []), time.monotonic()
            while True:
                if time.monotonic() - looked_s > self._look_s:
                    partitions, looked_s = await self._assign(consumer, partitions), time.monotonic()
                fetched = await consumer.getmany(timeout_ms=100, max_records=RECORDS_MAX)
                self.problem = ""
                for tp, records in fetched.items():
                    if not self._skips(consumer, tp, records):
                        self._read(tp, records)
                self.behind = self._lag(consumer, partitions)
                if sum(map(len, fetched.values())) < RECORDS_MAX:
                    await asyncio.sleep(PAUSE_S)
                else:
                    await asyncio.sleep(0.02)  # there is much to catch up with, and a page to serve meanwhile

    async def _assign(self, consumer: AIOKafkaConsumer, assigned: list[TopicPartition]) -> list[TopicPartition]:
        """All partitions of the topics that exist; a topic that does not is not made by asking for it."""
        while not (partitions := await self._partitions(consumer)):
            self.problem = "the topics are missing: `nudge topics create`"
            await asyncio.sleep(RETRY_S)
        if partitions == assigned:
            return assigned
        consumer.assign(partitions)
        for tp in partitions:
            consumer.seek(tp, self._positions.get(tp, 0))
        return partitions

    async def _partitions(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        cluster = await consumer._client.fetch_all_metadata()
        found = ((topic, cluster.partitions_for_topic(topic) or ()) for topic in self._take)
        return [TopicPartition(topic, number) for topic, numbers in found for number in sorted(numbers)]

    def _skips(self, consumer: AIOKafkaConsumer, tp: TopicPartition, records: list[Any]) -> bool:
        """At the first fetch of a long partition: go on near its end instead."""
        if tp in self._positions:
            return False
        start = (consumer.highwater(tp) or 0) - BACK_RECORDS[tp.topic]
        self._positions[tp] = max(start, 0)
        if records[0].offset >= start:
            return False
        consumer.seek(tp, start)
        return True

    def _read(self, tp: TopicPartition, records: list[Any]) -> None:
        take = self._take[tp.topic]
        for record in records:
            if record.value is None:
                continue
            try:
                take(record)
            except msgspec.MsgspecError:
                self._tally.unreadable += 1
        self._positions[tp] = records[-1].offset + 1

    def _lag(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> int:
        ends = ((tp, consumer.highwater(tp)) for tp in partitions)
        return sum(max(0, end - self._positions.get(tp, 0)) for tp, end in ends if end is not None)
