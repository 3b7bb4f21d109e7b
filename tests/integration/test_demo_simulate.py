import asyncio
from collections import Counter

import pytest

from app.demo.feed import EventFeed
from app.demo.reader import TopicReader
from app.demo.simulate import Load, simulate
from app.topics import create_topics
from schemas.events import Event, Rejected, decode_event, encode_event
from schemas.topics import EVENTS
from tests.support.broker import embedded  # noqa: F401 - a fixture

pytestmark = pytest.mark.broker


async def read_all(bootstrap: str) -> list:
    async with TopicReader(bootstrap, [EVENTS]) as reader:
        return await read_to_end(reader)


async def read_to_end(reader: TopicReader) -> list:
    found = []
    async with asyncio.timeout(20):
        while (records := await reader.read(wait_ms=50)) or not await reader.at_end():
            found += records
    return found


async def test_a_successor_goes_on_from_there_to_the_real_end(embedded):  # noqa: F811
    await create_topics(embedded.bootstrap, 3)
    async with EventFeed(embedded.bootstrap) as feed, TopicReader(embedded.bootstrap, [EVENTS]) as reader:
        feed.add(b"k", b"first")
        await feed.flush()
        found = [record.value for record in await read_to_end(reader)]
        for number in range(500):
            feed.add(b"k%d" % number, b"rest")
        await feed.flush()
        async with await reader.successor() as rest:
            found += [record.value for record in await read_to_end(rest)]
    assert found == [b"first"] + [b"rest"] * 500


async def test_a_reader_is_not_at_the_end_before_its_first_fetch(embedded):  # noqa: F811
    await create_topics(embedded.bootstrap, 3)
    async with TopicReader(embedded.bootstrap, [EVENTS]) as reader:
        assert not await reader.at_end()
        assert await read_to_end(reader) == []  # also where partitions are empty


async def test_what_simulate_reports_is_what_the_topic_holds(embedded):  # noqa: F811
    await create_topics(embedded.bootstrap, 3)
    produced = await simulate(embedded.bootstrap, Load(rate=0, users=200, events=5000))
    records = await read_all(embedded.bootstrap)
    assert produced.records == len(records) == 5000
    names: Counter[str] = Counter()
    for record in records:
        event = decode_event(record.value, record.key)
        if not isinstance(event, Rejected):
            names[event.event] += 1
    assert names["Product Viewed"] >= produced.kinds["Product Viewed"]
    assert len({(record.key, record.partition) for record in records}) == len({record.key for record in records})


async def test_the_stated_rate_is_kept(embedded):  # noqa: F811
    await create_topics(embedded.bootstrap, 3)
    produced = await simulate(embedded.bootstrap, Load(rate=2000, users=200, seconds=1.0))
    assert produced.records == pytest.approx(2000, rel=0.15)


async def test_real_decisions_are_answered_when_asked(embedded):  # noqa: F811
    await create_topics(embedded.bootstrap, 3)
    load = Load(rate=50, users=20, seconds=3.0, answer=True)
    running = asyncio.create_task(simulate(embedded.bootstrap, load, clock=FastClock()))
    async with EventFeed(embedded.bootstrap) as feed:
        await until_views_arrive(embedded.bootstrap)  # by then it listens
        for number in range(100):
            user = f"user-{number % 20}"
            receipt = Event(
                type="track",
                event="Notification Sent",
                user_id=user,
                message_id=f"d{number}:sent",
                timestamp=number * 86_400_000,
                properties={"decisionId": f"d{number}", "campaign": "c", "category": "k"},
            )
            feed.add(user.encode(), encode_event(receipt))
        await feed.flush()
    produced = await running
    assert produced.answers > 5
    answered = set()
    for record in await read_all(embedded.bootstrap):
        event = decode_event(record.value, record.key)
        if not isinstance(event, Rejected) and str(event.properties.get("decisionId", "")).startswith("d"):
            answered.add(event.event)
    assert "Notification Opened" in answered


async def until_views_arrive(bootstrap: str) -> None:
    async with TopicReader(bootstrap, [EVENTS]) as reader, asyncio.timeout(20):
        while not any(b"Product Viewed" in (record.value or b"") for record in await reader.read()):
            pass


async def test_the_feed_knows_the_offsets_that_were_acknowledged(embedded):  # noqa: F811
    await create_topics(embedded.bootstrap, 3)
    async with EventFeed(embedded.bootstrap) as feed:
        for number in range(3000):
            feed.add(b"k%d" % (number % 50), b"x" * 300)
            if number % 100 == 99:
                await feed.send()
        await feed.flush()
        acknowledged = {
            (partition, offset) for partition, runs in enumerate(feed.acknowledged) for run in runs for offset in run
        }
    records = await read_all(embedded.bootstrap)
    assert acknowledged == {(record.partition, record.offset) for record in records}
    assert len(acknowledged) == 3000


class FastClock:
    """Far ahead of every receipt: each answer is due at once."""

    rate = 1.0

    def now_ms(self) -> int:
        return 200 * 86_400_000
