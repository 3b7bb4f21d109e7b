"""From orders to a push that carries a product: what others bought with it, and nothing that the user has."""

from __future__ import annotations

import time

import pytest

from schemas.decisions import Decision, decode_decision
from schemas.events import Event
from schemas.topics import DECISIONS
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker


def event(what: str, user: str, message: str, properties: dict[str, object]) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(type="track", event=what, user_id=user, message_id=message, timestamp=now_ms, properties=properties)


def order(*items: str) -> dict[str, object]:
    return {"products": [product(item) for item in items]}


def product(item: str) -> dict[str, object]:
    return {"product_id": item, "name": f"The {item}", "category": item.upper()}


async def test_a_push_carries_what_others_bought_with_it_and_nothing_that_the_user_has(site: Site) -> None:
    baskets = [["tea", "cup", "spoon"]] * 4 + [["hat", "scarf"]] * 4
    with site.worker(policy="slot.yaml") as worker, site.sender() as sender:
        await site.ready(worker)
        await site.ready(sender)
        await site.happen(
            [event("Order Completed", f"u{n}", f"order-{n}", order(*basket)) for n, basket in enumerate(baskets)]
        )

        async def learned() -> bool:
            return site.metric(worker, "nudge_model_version", model="open.items") == len(baskets)

        await eventually(learned, "the worker serves what was bought together")
        await site.happen([event("Order Completed", "u20", "own", order("cup"))])
        await site.happen([event("Product Viewed", "u20", "view", product("tea"))])

        async def delivered() -> bool:
            return len(site.lines()) == 1

        await eventually(delivered, "the push is delivered")
    made: Decision = decode_decision((await site.records(DECISIONS))[0].value)
    assert made.id in site.lines()
    assert made.content is not None
    assert made.content.title == "Goes with it: The spoon"
    assert made.content.deep_link == "shop://product/spoon"
    named = made.content.body.split()
    assert named[0] == "spoon"
    assert not {"tea", "cup"} & set(named), "of what the message is about, and of what the user has"
