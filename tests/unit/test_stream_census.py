"""The census over an engine's rows: thresholds come of what the rows say, and rows follow them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.core.percentiles import Board
from app.core.processor import Processor, make_index
from app.core.profile import decode_profile
from app.policy.load import load_policy_text
from app.stream.census import FORGET_MS, Census
from schemas.events import ORDER_COMPLETED
from schemas.percentiles import Percentiles, decode_percentiles, percentiles_key
from schemas.segments import decode_membership
from schemas.topics import PERCENTILES, SEGMENTS
from tests.support.engine import Rig, make_rig
from tests.support.plans import FixedScorer, campaign_only
from tests.support.site import eventually
from tests.support.streams import START, FakeRecord, record, track

NUMBER = "sum('Order Completed.revenue', '30d')"
TEXT = f'version: 1\nname: shop\nsegments:\n  - {{name: best, when: "top(10, {NUMBER})"}}\n'
TOP = load_policy_text(TEXT)
PLAIN = load_policy_text("version: 2\nname: shop\nsegments:\n  - {name: buyers, when: orders() > 0}\n")
USERS = 150  # more than two pages


class FakeFeed:
    """The topic of a test: whatever the producer was given."""

    def __init__(self, rig: Rig, processor: Processor) -> None:
        self._rig, self._processor = rig, processor
        self._board = Board()
        self._read = 0
        self.followed = 0

    @property
    def board(self) -> Board:
        for output in self._rig.app.durable_producer.outputs[self._read :]:
            self._read += 1
            if output.topic == PERCENTILES:
                value = None if output.value is None else decode_percentiles(output.value)
                if self._board.take(output.key or b"", value):
                    self._processor.serve(self._board.buckets())
        return self._board

    async def follow(self) -> bool:
        self.followed += 1
        return True


class World:
    """An engine, its rows and a census."""

    def __init__(self, rig: Rig, processor: Processor) -> None:
        self.rig, self.processor = rig, processor
        self.log: list[FakeRecord] = []
        self.feed = FakeFeed(rig, processor)
        rig.now_ms = START
        rig.engine.lag = dict  # type: ignore[method-assign]  # there is no broker to ask
        self.census = Census(
            rig.engine,
            processor,
            self.feed,
            lambda: rig.now_ms,
            partitions=1,
            interval_s=3600,
            share=1.0,
        )

    async def orders(self, revenues: dict[str, float]) -> None:
        start = len(self.log)
        events = [track(ORDER_COMPLETED, self.rig.now_ms, user, revenue=number) for user, number in revenues.items()]
        self.log += [record(event, start + n) for n, event in enumerate(events)]
        batch = self.rig.batch(*[(user, "") for user in revenues], start=start)
        batch.records = self.log[start:]
        await self.rig.engine.submit(batch)

    async def looked(self, times: int = 3) -> None:
        """Let the census look at everything that there is to do, without its waits."""
        for _ in range(times):
            await self.census._look()
            await self.rig.settled()

    def members(self) -> list[str]:
        rows = self.rig.table.stores[0].page(b"", 1000)
        return sorted(key.decode() for key, value in rows if decode_profile(value).segments)

    def published(self) -> list[Percentiles]:
        outputs = [out for out in self.rig.app.durable_producer.outputs if out.topic == PERCENTILES]
        return [decode_percentiles(out.value) for out in outputs if out.value is not None]

    def changes(self) -> list[tuple[str, str, str]]:
        outputs = [out for out in self.rig.app.durable_producer.outputs if out.topic == SEGMENTS]
        found = [decode_membership(out.value or b"") for out in outputs]
        return sorted((change.user, change.change, change.cause) for change in found)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    processor = Processor(TOP, FixedScorer(), campaign_only)
    made = World(await make_rig(tmp_path, processor=processor), processor)
    await made.orders({f"u{at:03}": 1.02**at for at in range(USERS)})  # each in a bucket of its own
    return made


BEST = [f"u{at:03}" for at in range(135, 150)]


async def test_every_user_is_counted_once_and_the_largest_tenth_enters(world: World) -> None:
    await world.looked()
    assert [(record.partition, record.users) for record in world.published()] == [(0, 150), (-1, 150), (0, 150)]
    assert world.members() == BEST
    assert world.changes() == [(user, "enter", "percentile") for user in BEST]


async def test_what_has_been_counted_is_left_alone_until_the_interval_has_passed(world: World) -> None:
    await world.looked()
    before = len(world.published())
    await world.looked(5)
    assert len(world.published()) == before
    world.census._interval_s = 0
    await world.looked(1)
    assert len(world.published()) == before + 1


async def test_users_who_do_nothing_leave_when_others_have_passed_them(world: World) -> None:
    await world.looked()
    await world.orders({f"u{at:03}": 1000 for at in range(15)})
    world.census._interval_s = 0
    await world.looked()
    assert world.members() == [f"u{at:03}" for at in range(15)]
    assert {(user, "leave", "percentile") for user in BEST} <= set(world.changes())


async def test_a_policy_without_percentiles_is_not_counted_for(world: World) -> None:
    world.processor.switch(make_index(PLAIN))
    world.census.start()
    await asyncio.sleep(0)
    await world.census.stop()
    assert (world.feed.followed, world.published()) == (0, [])


async def test_nothing_is_published_while_the_backfill_has_not_come_far(world: World) -> None:
    world.processor.switch(make_index(load_policy_text(TEXT.replace("version: 1", "version: 3"))))
    await world.looked(1)
    assert world.published() == []
    await world.orders({f"u{at:03}": 0 for at in range(USERS - 5)})  # an event brings its row to the new version
    await world.looked(1)
    assert world.published() == []  # counted again only after a while
    world.census._done.clear()
    await world.looked(1)
    assert [record.users for record in world.published()][:1] == [USERS - 5]


async def test_a_backlog_slows_the_count_down_and_does_not_stop_it(world: World) -> None:
    world.rig.engine.lag = lambda: {("events", 0): 1_000_000}  # type: ignore[method-assign]
    await world.looked()
    assert world.members() == BEST


async def test_a_partition_that_is_given_up_meanwhile_publishes_nothing(world: World) -> None:
    ((partition, done),) = world.census._due()
    world.rig.engine.assigned(set())
    assert await world.census._count(partition, done.mark) is None
    assert world.published() == []


async def test_a_store_that_is_closed_before_the_engine_gives_its_partition_up_ends_the_count(world: World) -> None:
    world.rig.table.stores.pop(0)
    await world.looked(1)
    assert world.published() == []


async def test_thresholds_are_published_by_the_owner_of_the_first_partition_only(world: World) -> None:
    await world.looked(1)
    world.rig.engine.assigned(set())
    before = len(world.published())
    await world.looked()
    assert len(world.published()) == before


async def test_what_nobody_asks_for_any_more_is_deleted_after_a_week(world: World) -> None:
    old = Percentiles(number="orders()", partition=-1, at_ms=START - FORGET_MS - 1, users=50)
    await world.census._publish([old])
    await world.looked()
    deleted = [out.key for out in world.rig.app.durable_producer.outputs if out.topic == PERCENTILES and not out.value]
    assert deleted == [percentiles_key(old)]


async def test_it_runs_by_itself(world: World) -> None:
    world.census.start()

    async def done() -> bool:
        return world.members() == BEST

    await eventually(done, "the largest tenth is in", 20)
    await world.census.stop()
    await world.rig.settled()
