"""What the console reads of a broker: what was made after it began, too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from app.console.feed import TopicFeed
from app.console.tally import Tally
from app.topics import create_topics
from schemas.topics import BY_NAME, DECISIONS, SEGMENTS

pytestmark = pytest.mark.broker

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20.0):
        while not done():  # noqa: ASYNC110 - nobody would tell
            await asyncio.sleep(0.02)


async def test_a_topic_that_is_made_later_is_read_and_nothing_is_counted_twice(embedded) -> None:
    async def produce(topic: str, example: str) -> None:
        await create_topics(embedded.bootstrap, 1, topics=[BY_NAME[topic]])
        value = json.loads((EXAMPLES / f"{example}.json").read_text())["value"]
        producer = AIOKafkaProducer(bootstrap_servers=embedded.bootstrap)
        await producer.start()
        await producer.send_and_wait(topic, json.dumps(value).encode())
        await producer.stop()

    tally = Tally(b"secret")
    feed = TopicFeed({"bootstrap_servers": embedded.bootstrap}, tally, look_s=0.1)
    task = asyncio.create_task(feed.run())
    await produce(DECISIONS, "decision-send")
    await until(lambda: tally.sends + sum(tally.reasons.values()) == 1)
    await produce(SEGMENTS, "segment-enter")
    await until(lambda: tally.entered.total() == 1)
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert tally.sends + sum(tally.reasons.values()) == 1
    assert tally.entered.total() == 1
