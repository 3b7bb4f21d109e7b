"""The shop's policy at work: the compiled plan in the processor that will run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.core.browsing import Item
from app.core.effects import Effects
from app.core.item_table import ItemTable
from app.core.plan import Plan
from app.core.processor import Processor
from app.core.profile import Profile
from app.policy.load import load_policy
from schemas.decisions import Decision, decode_decision
from schemas.events import Event, encode_event
from schemas.segments import MembershipChange, decode_membership
from schemas.topics import DECISIONS, SEGMENTS

NOON = 1_488_474_000_000  # 2017-03-02 12:00 in New York
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
PLAN = replace(load_policy(Path(__file__).parents[2] / "policies" / "shop.yaml"), holdout_share=0.0)


class Even:
    """A model that knows nothing."""

    version = 1

    def open_probability(self, features: Mapping[str, float]) -> float:
        return 0.2


class Shop:
    """One user's stream through the processor, timers included."""

    def __init__(self, plan: Plan = PLAN, user: str = "ann") -> None:
        self.processor = Processor(plan, Even(), lambda profile, campaign, now_ms, plan: {})
        self.key = user.encode()
        self.rows: dict[bytes, Profile] = {}
        self.offset = 0
        self.decisions: list[Decision] = []
        self.moves: list[MembershipChange] = []
        self._take("Notifications Enabled", NOON - DAY, {})

    def at(self, at_ms: int, name: str, **properties: Any) -> None:
        """Let the time come, with what falls due on the way, and then the event."""
        self.wait(at_ms)
        self._take(name, at_ms, properties)

    def wait(self, until_ms: int) -> None:
        """Fire each timer at its instant."""
        while (at_ms := self.rows[self.key].due_ms()) <= until_ms:
            self._see(self.processor.fire([self.key], self.rows, now_ms=at_ms, mark=self.offset, acked_offset=0))

    def _take(self, name: str, at_ms: int, properties: dict[str, Any]) -> None:
        event = Event(type="track", event=name, user_id=self.key.decode(), timestamp=at_ms, properties=properties)
        record = SimpleNamespace(
            key=self.key, value=encode_event(event), offset=self.offset, timestamp=at_ms, headers=[]
        )
        self.offset += 1
        self._see(self.processor.process([record], "events", 0, self.rows, now_ms=at_ms, acked_offset=0))

    def _see(self, effects: Effects) -> None:
        for output in effects.outputs:
            assert output.value is not None
            if output.topic == DECISIONS:
                self.decisions.append(decode_decision(output.value))
            elif output.topic == SEGMENTS:
                self.moves.append(decode_membership(output.value))

    def sent(self) -> list[tuple[str, int]]:
        """Campaigns sent, and when."""
        return [(made.campaign, made.decided_ms) for made in self.decisions if made.action == "send"]

    def changes(self, segment: str) -> list[tuple[str, int]]:
        """Entered and left, and when."""
        return [(move.change, move.at_ms) for move in self.moves if move.segment == segment]


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_looking_closely_is_entered_on_the_third_view_and_left_by_the_clock(shop: Shop) -> None:
    for minute in (0, 10, 20):
        shop.at(NOON + minute * MINUTE, "Product Viewed", category="DELI")
    shop.wait(NOON + 2 * HOUR)
    # Views at :00, :10, :20; the first one's pane leaves the 60 panes at 13:00.
    assert shop.changes("window_shoppers") == [("enter", NOON + 20 * MINUTE), ("leave", NOON + HOUR)]
    assert shop.sent() == [("need_help", NOON + 20 * MINUTE)]
    content = shop.decisions[-1].content
    assert content is not None
    assert content.body == "What others bought in deli, at a glance."  # no product is known yet


def test_half_of_those_who_look_closely_are_named_products_and_of_three_departments() -> None:
    top = tuple(Item(f"p{n}", name) for n, name in enumerate(["GROCERY", "GROCERY", "MEAT", "DELI"]))
    said = set()
    for user in ("ann", "bob", "cleo", "dan", "eve", "finn"):
        shop = Shop(user=user)
        shop.processor.items = ItemTable(top=top)
        for minute in (0, 10, 20):
            shop.at(NOON + minute * MINUTE, "Product Viewed", category="PRODUCE", product_id="q1")
        content = shop.decisions[-1].content
        assert content is not None
        said.add((shop.decisions[-1].variant, content.body, content.deep_link))
    assert said == {
        ("with_products", "Others like you took something from grocery, meat and deli.", "shop://product/p0"),
        ("plain", "The most bought in produce, at a glance.", "shop://popular/produce"),
    }


def test_a_cart_left_behind_is_spoken_of_after_a_quarter_of_an_hour(shop: Shop) -> None:
    shop.at(NOON, "Product Added", cart_id="c1", category="MEAT", product_id="p")
    shop.wait(NOON + HOUR)
    assert shop.sent() == [("cart_abandoned", NOON + 15 * MINUTE)]
    content = shop.decisions[-1].content
    assert content is not None
    assert content.deep_link == "shop://cart/c1"


def test_a_cart_that_is_bought_is_not_spoken_of(shop: Shop) -> None:
    shop.at(NOON, "Product Added", cart_id="c1", category="MEAT", product_id="p")
    shop.at(NOON + 10 * MINUTE, "Order Completed", order_id="o", cart_id="c1", revenue=12.0, category="MEAT")
    shop.wait(NOON + HOUR)
    assert shop.sent() == []


def test_a_large_order_is_thanked_for_and_a_small_one_is_not(shop: Shop) -> None:
    shop.at(NOON, "Order Completed", order_id="o1", cart_id="c1", revenue=24.99, category="GROCERY")
    assert shop.sent() == []
    shop.at(NOON + HOUR, "Order Completed", order_id="o2", cart_id="c2", revenue=25, category="GROCERY")
    assert shop.sent() == [("thank_you", NOON + HOUR)]


def test_silence_of_two_days_calls_a_customer_back_but_not_a_stranger(shop: Shop) -> None:
    shop.at(NOON, "Application Opened")
    shop.wait(NOON + 3 * DAY)
    assert shop.sent() == []
    shop.at(NOON + 3 * DAY, "Order Completed", order_id="o1", cart_id="c1", revenue=5, category="GROCERY")
    shop.wait(NOON + 6 * DAY)
    assert shop.sent() == [("come_back", NOON + 5 * DAY)]


def test_fresh_food_is_found_in_the_baskets_products(shop: Shop) -> None:
    for day in range(3):
        products = [{"product_id": "1", "category": "GROCERY"}, {"product_id": "2", "category": "PRODUCE"}]
        shop.at(
            NOON + day * DAY, "Order Completed", order_id=str(day), revenue=1, category="GROCERY", products=products
        )
    assert [change for change, _ in shop.changes("fresh_food_lovers")] == ["enter"]
