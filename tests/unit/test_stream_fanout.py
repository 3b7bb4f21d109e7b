"""The fan-out over an engine's rows: whom a change concerns is found and told once, whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.campaign import ItemTrigger, Trigger
from app.core.catalog import Catalog, item_hash
from app.core.processor import Processor
from app.core.wishes import KINDS
from app.stream.fanout import FanOut, Recent
from app.stream.wish_index import SLACK, WishIndex
from schemas.catalog import CatalogItem
from schemas.decisions import decode_decision
from schemas.events import PRODUCT_VIEWED
from tests.support.engine import Rig, make_rig
from tests.support.plans import DAY, FixedScorer, campaign, campaign_only, make_plan
from tests.support.site import eventually
from tests.support.streams import START, record, track

TRIGGER = ItemTrigger(sum(KINDS.values()), by=0.1, affinity=2.0)
PLAN = make_plan(campaigns=[campaign("cheaper", Trigger("price_drop", item=TRIGGER), expires_ms=DAY)])
USERS = 150  # more than two pages


class World:
    """A worker's engine, catalog and fan-out; `reborn` is what follows it after a kill."""

    def __init__(self, path: Path, recent: Recent, catalog: Catalog) -> None:
        self.path, self.recent, self.catalog = path, recent, catalog
        self.processor = Processor(PLAN, FixedScorer(), campaign_only)
        self.processor.catalog = catalog
        self.offset = 0
        self.made: dict[str, str] = {}

    async def begin(self) -> None:
        self.rig: Rig = await make_rig(self.path, processor=self.processor)
        self.rig.now_ms = START
        self.rig.engine.lag = dict  # type: ignore[method-assign]  # there is no broker to ask
        triggers = [TRIGGER]
        self.fanout = FanOut(
            self.rig.engine, self.processor, self.recent, lambda: triggers, lambda: self.rig.now_ms, share=1.0
        )
        self.fanout.start()

    async def view(self, item: str, *users: str, category: str = "") -> None:
        events = [track(PRODUCT_VIEWED, START - 1, user, product_id=item, category=category) for user in users]
        batch = self.rig.batch(*[(user, "") for user in users], start=self.offset)
        batch.records = [record(event, self.offset + at) for at, event in enumerate(events)]
        self.offset += len(events)
        await self.rig.engine.submit(batch)
        await self.rig.settled()

    def put(self, item: str, price: float, version: int, category: str = "") -> None:
        change = self.catalog.take(item, CatalogItem(id=item, price=price, category=category), version, START)
        if change is not None:
            self.recent.add(change)

    async def told(self, number: int) -> list[str]:
        async def done() -> bool:
            return len(self.sent()) >= number and self.fanout.waiting() == 0

        await eventually(done, f"{number} are told", 10)
        await self.rig.settled()
        return self.sent()

    def sent(self) -> list[str]:
        """The user of each decision; one that was published again is the same one."""
        for out in self.rig.app.durable_producer.outputs:
            if out.topic == "decisions":
                made = decode_decision(out.value or b"")
                self.made[made.id] = made.user
        return sorted(self.made.values())


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path, Recent(), Catalog())
    await made.begin()
    made.put("p1", 100, 0)
    return made


EVERYBODY = sorted(f"u{n}" for n in range(USERS))


async def test_everybody_who_wants_the_item_is_told_once(world: World) -> None:
    await world.view("p1", *EVERYBODY)
    await world.view("p2", "other")
    world.put("p1", 80, 1)
    assert await world.told(USERS) == EVERYBODY
    world.put("p2", 80, 2)
    assert await world.told(USERS) == EVERYBODY
    await world.fanout.stop()


async def test_the_index_is_built_from_the_store_and_who_was_told_is_not_told_again(world: World) -> None:
    await world.view("p1", *EVERYBODY)
    world.put("p1", 80, 1)
    await world.told(USERS)
    await world.fanout.stop()
    world.rig.table.stores[0].close()
    await world.begin()  # the changes are offered again: nothing says how far the one before had come
    world.put("p1", 60, 2)
    assert await world.told(2 * USERS) == sorted(EVERYBODY * 2)
    assert world.fanout.entries() == USERS
    await world.fanout.stop()


async def test_a_change_that_came_while_nobody_owned_the_partition_is_not_lost(world: World) -> None:
    await world.view("p1", *EVERYBODY)
    await world.fanout.stop()
    world.put("p1", 80, 1)
    world.rig.table.stores[0].close()
    await world.begin()
    assert await world.told(USERS) == EVERYBODY
    await world.fanout.stop()


async def test_those_who_like_the_category_are_found_in_a_pass(world: World) -> None:
    await world.view("shoe", *EVERYBODY * 3, category="SHOES")
    await world.view("shoe", "once", category="SHOES")
    world.put("p9", 100, 1, "SHOES")
    world.put("p9", 50, 2, "SHOES")
    assert await world.told(USERS) == EVERYBODY
    await world.fanout.stop()


async def test_old_changes_are_forgotten(world: World) -> None:
    await world.view("p1", "u1")
    world.rig.now_ms = START + 2 * DAY
    world.put("p1", 80, 1)
    assert world.fanout.waiting() == 0
    assert len(world.recent) == 0
    await world.fanout.stop()


def test_an_index_names_each_row_once_and_says_when_it_is_worn() -> None:
    index = WishIndex()
    for key in (b"a", b"b", b"a"):
        index.add(item_hash("p1"), key)
    index.built()
    assert index.keys(item_hash("p1")) == [b"a", b"b"]
    assert index.keys(item_hash("p2")) == []
    assert not index.worn
    for _ in range(SLACK + 4):
        index.add(item_hash("p1"), b"a")
    assert index.worn


async def test_a_pass_ends_when_the_partitions_store_is_closed_under_it(world: World) -> None:
    rig, fanout = world.rig, world.fanout
    await world.view("p2", *EVERYBODY, category="shoes")
    await world.view("p1", *EVERYBODY)
    await fanout.stop()
    pages = fanout._pages(0, fanout._state(0))  # type: ignore[arg-type]
    await anext(pages)
    rig.table.close_partition(0)  # the engine is told when all the others are restored, seconds later
    assert [page async for page in pages] == []
