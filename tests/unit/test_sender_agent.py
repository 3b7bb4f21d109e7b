"""What a sender has under way, and what it does while it cannot see opt-outs yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

from agents import deliveries
from app.sender.worker import SuppressionFeed
from app.settings import load_settings
from app.stream.batch import RecordBatch
from app.stream.broadcast import BroadcastReader
from schemas.events import NOTIFICATIONS_DISABLED, NOTIFICATIONS_ENABLED, Event, encode_event
from schemas.topics import EVENTS
from tests.unit.test_stream_broadcast import Topic, until


class App:
    """Runs the agent that is attached to it."""

    def __init__(self, batches: list[RecordBatch]) -> None:
        self._batches = batches
        self.agents: list[Callable[[Any], Any]] = []

    def batched_topic(self, name: str) -> str:
        return name

    def agent(self, _topic: str, **_settings: Any) -> Callable[[Any], Any]:
        return lambda agent: self.agents.append(agent) or agent  # type: ignore[func-returns-value]

    async def run(self) -> None:
        async def batches() -> AsyncIterator[list[RecordBatch]]:
            for batch in self._batches:
                yield [batch]

        await self.agents[0](batches())


def batches(number: int, records: int) -> list[RecordBatch]:
    made = [[SimpleNamespace(offset=n * records + at) for at in range(records)] for n in range(number)]
    return [RecordBatch("decisions", 0, each, 1, lambda _batch: True, lambda _batch: None) for each in made]


async def under_way(given: list[RecordBatch]) -> int:
    """How many batches are begun when none of them ends."""
    begun: list[RecordBatch] = []

    async def deliver(batch: RecordBatch) -> None:
        begun.append(batch)
        await asyncio.Event().wait()

    app = App(given)
    deliveries.attach(app, deliver)  # type: ignore[arg-type]
    running = asyncio.create_task(app.run())
    for _ in range(2_000):
        await asyncio.sleep(0)
    running.cancel()
    return len(begun)


async def test_a_transactional_message_is_not_kept_behind_a_few_that_are_held_back() -> None:
    assert await under_way(batches(400, 1)) == 400


async def test_what_is_under_way_is_bounded_in_records() -> None:
    assert await under_way(batches(40, 500)) == deliveries.RECORDS_MAX // 500


def consent(event: str, after_ms: int) -> bytes:
    at_ms = time.time_ns() // 1_000_000 - 60_000 + after_ms
    return encode_event(Event(type="track", event=event, user_id="ann", timestamp=at_ms))


async def test_who_opted_in_again_is_not_taken_for_opted_out_while_the_topic_is_read_again() -> None:
    topic = Topic([consent(NOTIFICATIONS_DISABLED, 1_000), consent(NOTIFICATIONS_ENABLED, 2_000)])
    topic.key = b"ann"
    feed = SuppressionFeed(load_settings(profile="dev", broker="127.0.0.1:1"))
    feed.reader = BroadcastReader({}, EVENTS, feed.apply, anew=feed.begin, connect=topic)
    topic.known = 1
    await feed.start(0.05)
    assert feed.check("ann", "") is None, "not opted out for good before all has been read"
    topic.known = 2
    await until(lambda: feed.check("ann", "") is False)
    topic.known = 1
    feed.reader.restart()
    await until(lambda: not feed.reader.whole)
    await until(lambda: any(state.position == 1 for state in topic._states.values()))
    assert feed.check("ann", "") is False, "as it was known before"
    topic.partitions[0].append(consent(NOTIFICATIONS_DISABLED, 3_000))
    topic.known = 3
    await until(lambda: feed.check("ann", "") is True)
    await feed.reader.stop()


async def test_while_opt_outs_are_still_being_read_the_sender_begins_and_holds_promotional_messages_back() -> None:
    feed, topic = SuppressionFeed(load_settings(profile="dev", broker="127.0.0.1:1")), Topic([b"{}"])
    feed.reader = BroadcastReader({}, EVENTS, feed.apply, connect=topic)
    topic.silent = {0}
    await feed.start(0.05)
    assert (feed.fresh(), feed.check("ann", "")) == (False, None)
    topic.silent = set()
    await until(feed.fresh)
    assert feed.check("ann", "") is False
    await feed.reader.stop()
