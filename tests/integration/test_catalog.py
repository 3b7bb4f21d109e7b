"""The catalog on a broker: a price falls, and those who wanted the item are told once, though a worker dies."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import pytest

from schemas.catalog import CatalogItem, encode_item
from schemas.decisions import decode_decision
from schemas.events import Event
from schemas.topics import CATALOG, DEAD_LETTERS, DECISIONS
from tests.support.site import POLICIES, Site, eventually

pytestmark = pytest.mark.broker

USERS = 300


def did(name: str, user: str, item: str) -> Event:
    at_ms = time.time_ns() // 1_000_000
    return Event(
        type="track",
        event=name,
        user_id=user,
        message_id=f"{name}-{user}-{item}",
        timestamp=at_ms,
        properties={"product_id": item},
    )


async def put(site: Site, item: CatalogItem) -> None:
    await site.put_one(CATALOG, item.id.encode(), encode_item(item))
    await site.flush()


async def sent(site: Site) -> Counter[tuple[str, str, str]]:
    made = {one.id: one for one in [decode_decision(value or b"") for _, _, value, _ in await site.read(DECISIONS)]}
    return Counter((one.user, one.campaign, one.trigger_key) for one in made.values() if one.action == "send")


async def test_a_kill_in_the_middle_of_a_fan_out_tells_everybody_once(site: Site) -> None:
    users = [f"u{n}" for n in range(USERS)]
    await put(site, CatalogItem(id="p1", name="Shoe", price=100.0))
    await put(site, CatalogItem(id="p2", name="Hat", price=10.0, stock=0))
    await site.put_one(CATALOG, b"p3", b'{"id": "p3", "price": "cheap"}')
    cheaper = {(user, "cheaper", "p1") for user in users if user != "u7"}
    with site.worker("one", "wishes.yaml", NUDGE_BACKFILL_SHARE="0.02") as one:
        await site.ready(one)
        await site.happen([did("Product Viewed", user, "p1") for user in users])
        await site.happen([did("Stock Alert Requested", "u1", "p2"), did("Order Completed", "u7", "p1")])

        async def folded() -> bool:
            return site.metric(one, "nudge_events_total", topic="events", outcome="applied") >= USERS + 2

        await eventually(folded, "the events are folded")
        await asyncio.sleep(0.01)  # a change is later than the interest in what changes
        await put(site, CatalogItem(id="p1", name="Shoe", price=80.0))

        async def some() -> bool:
            return len(await sent(site)) >= 30

        await eventually(some, "some have been told")
        one.kill()
    assert len(await sent(site)) < USERS - 1, "the fan-out was over before the kill"
    with site.worker("two", "wishes.yaml") as two:
        await site.ready(two)

        async def everybody() -> bool:
            return set(await sent(site)) >= cheaper

        await eventually(everybody, "everybody has been told")
        await put(site, CatalogItem(id="p2", name="Hat", price=10.0, stock=5))

        async def back() -> bool:
            return ("u1", "back", "p2") in await sent(site)

        await eventually(back, "it is back in stock")
        await asyncio.to_thread(two.stop)
        assert two.returncode == 0, two.log_tail()
    found = await sent(site)
    assert found == Counter(cheaper | {("u1", "back", "p2")})
    letters = [headers for *_, headers in await site.read(DEAD_LETTERS)]
    assert {(letter["nudge_topic"], letter["nudge_reason"]) for letter in letters} == {(b"catalog", b"invalid_field")}
    told = await site.command("policy", "simulate", "--policy", str(POLICIES / "wishes.yaml"), "--from-topic", "--json")
    rows = json.loads(told.stdout)["decisions"]
    assert {(row["campaign"], row["action"]): row["after"] for row in rows} == {
        ("cheaper", "send"): USERS - 1,
        ("back", "send"): 1,
    }, "a trial on the topics says what the workers did"
