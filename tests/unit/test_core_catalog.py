"""Triggers on the catalog: who is told of a price drop or of a new stock, once, and who is not."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.campaign import Campaign, ItemTrigger, Trigger
from app.core.catalog import Catalog, facts, item_hash
from app.core.plan import QuietHours
from app.core.processor import Processor, make_index
from app.core.wishes import KINDS, WISHES_MAX
from schemas.catalog import CatalogItem, decode_item, encode_item
from schemas.events import ORDER_COMPLETED, PRODUCT_ADDED, PRODUCT_VIEWED, Rejected
from tests.support.plans import DAY, HOUR, MINUTE, FixedScorer, campaign, campaign_only, make_plan
from tests.support.shelf import Shelf
from tests.support.streams import START, track

ALL = sum(KINDS.values())


def cheaper(**fields: Any) -> Campaign:
    return campaign("cheaper", Trigger("price_drop", item=ItemTrigger(ALL, by=0.1, **fields)), expires_ms=DAY)


def back(**fields: Any) -> Campaign:
    return campaign("back", Trigger("back_in_stock", item=ItemTrigger(ALL, **fields)), expires_ms=DAY)


def shelf(*campaigns: Campaign, **fields: Any) -> Shelf:
    return Shelf(make_plan(campaigns=campaigns or (cheaper(), back()), **fields))


def viewed(item: str = "p1", at_ms: int = START, user: str = "u1", name: str = PRODUCT_VIEWED) -> dict[str, Any]:
    return track(name, at_ms, user, product_id=item, category="SHOES")


def told(stream: Shelf) -> list[tuple[str, str, str]]:
    return [(made.user, made.campaign, made.trigger_key) for made in stream.sends]


def test_who_wants_an_item_hears_that_it_is_cheaper_and_once() -> None:
    stream = shelf()
    stream.put("p1", price=100)
    stream.send(viewed(), viewed(user="u2", item="p2"))
    stream.at(MINUTE).put("p1", price=80)
    stream.offer()
    stream.offer()
    assert told(stream) == [("u1", "cheaper", "p1")]
    assert stream.sends[0].trigger == "price_drop"


def test_the_next_drop_is_told_again_and_measured_against_what_was_told() -> None:
    stream = shelf()
    stream.put("p1", price=100)
    stream.send(viewed())
    for minute, price in enumerate((80, 75, 71), 1):
        stream.at(minute * MINUTE).put("p1", price=price)
        stream.offer()
    assert len(stream.sends) == 2  # 80, and 71: 75 is no tenth less than 80
    assert len({made.id for made in stream.sends}) == 2


def test_a_price_that_slides_is_noticed_when_it_has_slid_far_enough() -> None:
    stream = shelf()
    stream.put("p1", price=100)
    stream.send(viewed())
    for minute, price in enumerate((96, 93, 91, 89), 1):
        stream.at(minute * MINUTE).put("p1", price=price)
        stream.offer()
    assert len(stream.sends) == 1


def test_who_looked_after_the_drop_has_seen_it() -> None:
    stream = shelf()
    stream.put("p1", price=100)
    stream.send(viewed())
    stream.at(MINUTE).put("p1", price=50)
    stream.at(2 * MINUTE).send(viewed(at_ms=START + 2 * MINUTE))
    stream.offer()
    assert stream.decisions == []


@pytest.mark.parametrize("before", [True, False])
def test_who_bought_it_hears_nothing(before: bool) -> None:
    stream = shelf()
    stream.put("p1", price=100, stock=1)
    order = track(ORDER_COMPLETED, START, products=[{"product_id": "p1"}])
    stream.send(*((order, viewed()) if before else (viewed(), order)))
    stream.at(MINUTE).put("p1", price=50, stock=1)
    stream.at(2 * MINUTE).put("p1", price=50, stock=0)
    stream.at(3 * MINUTE).put("p1", price=40, stock=5)
    stream.offer()
    assert stream.decisions == []


def test_what_is_back_is_told_to_whoever_waited_for_it() -> None:
    stream = shelf(back())
    stream.put("p1", price=100, stock=0)
    stream.send(viewed(name="Stock Alert Requested"))
    stream.at(MINUTE).put("p1", price=100, stock=0)
    stream.offer()
    assert stream.decisions == []
    stream.at(2 * MINUTE).put("p1", price=100, stock=3)
    stream.offer()
    assert told(stream) == [("u1", "back", "p1")]


def test_what_has_gone_again_or_become_dearer_is_not_said() -> None:
    stream = shelf()
    stream.put("p1", price=100, stock=0)
    stream.put("p2", price=100)
    stream.send(viewed(), viewed("p2"))
    stream.at(MINUTE).put("p1", price=100, stock=3)
    stream.at(MINUTE).put("p2", price=50)
    stream.at(2 * MINUTE).put("p1", price=100, stock=0)
    stream.at(2 * MINUTE).put("p2", price=99)
    stream.offer()
    assert stream.decisions == []


def test_only_the_named_interests_count_and_only_for_a_time() -> None:
    carted = campaign("c", Trigger("price_drop", item=ItemTrigger(KINDS["carted"], HOUR)), expires_ms=DAY)
    stream = shelf(carted)
    stream.put("p1", price=100)
    stream.send(viewed(), viewed(user="u2", name=PRODUCT_ADDED), viewed(user="u3", name=PRODUCT_ADDED))
    stream.send(viewed(user="u3", name="Product Removed"))
    stream.at(30 * MINUTE).put("p1", price=90)
    stream.offer()
    assert told(stream) == [("u2", "c", "p1")]
    stream.at(2 * HOUR).put("p1", price=80)
    stream.offer()
    assert len(stream.sends) == 1


def test_cheap_items_and_small_drops_are_not_worth_a_message() -> None:
    stream = shelf(cheaper(price_from=20.0))
    stream.put("p1", price=21)
    stream.put("p2", price=100)
    stream.send(viewed(), viewed("p2"))
    stream.at(MINUTE).put("p1", price=19)
    stream.at(MINUTE).put("p2", price=95)
    stream.offer()
    assert stream.decisions == []


def test_a_condition_asks_the_items_facts() -> None:
    trigger = Trigger("price_drop", where=lambda item: item["category"] == "HATS", item=ItemTrigger(ALL))
    stream = shelf(campaign("hats", trigger))
    for item, category in (("p1", "HATS"), ("p2", "SHOES")):
        stream.put(item, price=10, category=category)
        stream.send(viewed(item))
        stream.at(MINUTE).put(item, price=5, category=category)
    stream.offer()
    assert [made.trigger_key for made in stream.decisions] == ["p1"]


def test_interest_in_the_category_is_told_of_the_best_of_a_round_and_once() -> None:
    stream = shelf(cheaper(affinity=2.0))
    for item in ("p1", "p2"):
        stream.put(item, price=100, category="SHOES")
    stream.send(*[viewed("other") for _ in range(3)], viewed("other", user="u2"))
    stream.at(MINUTE).put("p1", price=80, category="SHOES")
    stream.at(MINUTE).put("p2", price=60, category="SHOES")
    stream.offer(affine=True)
    stream.offer(affine=True)
    assert told(stream) == [("u1", "cheaper", "p2")]


def test_all_changes_of_an_instant_compete_and_one_is_sent() -> None:
    stream = shelf()
    for item in ("p1", "p2", "p3"):
        stream.put(item, price=100)
        stream.send(viewed(item))
    for item in ("p1", "p2", "p3"):
        stream.at(MINUTE).put(item, price=50)
    stream.offer()
    stream.offer()
    assert (len(stream.sends), stream.reasons) == (1, ["outranked", "outranked"])


@pytest.mark.parametrize("price", [50, 90])
def test_what_waits_for_the_morning_is_said_only_if_it_is_still_so(price: float) -> None:
    stream = shelf(quiet_hours=QuietHours(8 * 60, 11 * 60))
    stream.put("p1", price=100)
    stream.send(viewed())
    stream.at(MINUTE).put("p1", price=60)
    stream.offer()
    assert stream.decisions == []
    stream.at(HOUR).put("p1", price=price)
    stream.at(3 * HOUR).fire()
    assert len(stream.sends) == (price == 50)


def test_a_change_that_comes_too_late_has_expired() -> None:
    stream = shelf()
    stream.put("p1", price=100)
    stream.send(viewed())
    stream.at(MINUTE).put("p1", price=60)
    stream.at(2 * DAY).offer()
    stream.offer()
    assert stream.reasons == ["expired"]


def test_wishes_are_bounded_and_the_index_hears_of_new_ones_only() -> None:
    stream = shelf()
    for number in range(WISHES_MAX + 3):
        stream.send(viewed(f"p{number}", START + number))
    assert stream.effects.wished == [(item_hash(f"p{WISHES_MAX + 2}"), b"u1")]
    stream.send(viewed(f"p{WISHES_MAX + 2}", START + 99))
    assert stream.effects.wished == []
    assert stream.row.browsing is not None
    assert len(stream.row.browsing.wishes) == WISHES_MAX
    assert item_hash("p2") not in stream.row.browsing.wishes


def test_a_policy_without_such_a_trigger_keeps_nothing() -> None:
    stream = shelf(campaign("hello", Trigger("event", event="Hello")))
    stream.send(viewed())
    assert stream.row.browsing is None


def test_a_row_that_raises_stays_as_it_was() -> None:
    def broken(_profile: object, _now_ms: int, _user: str) -> bool:
        raise ZeroDivisionError

    heard = campaign("cheaper", Trigger("price_drop", item=ItemTrigger(ALL)), audience=broken)
    stream = shelf(heard)
    stream.put("p1", price=100)
    stream.send(viewed())
    stream.at(MINUTE).put("p1", price=60)
    effects = stream.offer()
    assert effects.counts["offers", "failed"] == 1
    assert effects.changed == {}
    stream.processor.switch(make_index(shelf().plan))
    stream.offer()
    assert len(stream.sends) == 1


def test_merged_rows_have_both_wishes() -> None:
    stream = shelf()
    stream.put("p1", price=100)
    stream.send(viewed(user="anon"), viewed("p2"))
    stream.send({"type": "alias", "userId": "u1", "previousId": "anon"})
    for _round in range(2):
        merges = [out for out in stream.outputs if out.topic == "events"]
        stream.outputs = [out for out in stream.outputs if out.topic != "events"]
        for out in merges:
            stream.send(out.value or b"", key=out.key)
    assert stream.effects.wished
    stream.at(MINUTE).put("p1", price=60)
    stream.offer()
    assert told(stream) == [("u1", "cheaper", "p1")]


# -- the catalog itself


def test_a_catalog_is_bounded_and_forgets_what_is_taken_away() -> None:
    catalog = Catalog(2)
    for at, item in enumerate(("a", "b", "c")):
        catalog.take(item, CatalogItem(id=item, price=10), at, START)
    assert (list(catalog.items), catalog.unknown) == (["a", "b"], 1)
    assert catalog.take("a", None, 3, START) is None
    assert catalog.take("a", CatalogItem(id="a", price=1), 4, START) is None  # new again: cheaper than nothing


def test_another_currency_is_no_drop() -> None:
    catalog = Catalog()
    catalog.take("a", CatalogItem(id="a", price=10, currency="EUR"), 0, START)
    assert catalog.take("a", CatalogItem(id="a", price=1, currency="BTC"), 1, START) is None


def test_facts_say_what_it_cost_and_by_how_much_it_dropped() -> None:
    found = facts(CatalogItem(id="a", name="A", price=75.0, stock=2), 100.0)
    assert (found["price_before"], found["drop_percent"], found["stock"]) == (100.0, 25, 2)
    assert "price_before" not in facts(CatalogItem(id="a", price=75.0), 75.0)


@pytest.mark.parametrize(
    ("raw", "key", "reason"),
    [
        (b"{", b"a", "malformed_json"),
        (b'{"id":"a","price":-1}', b"a", "invalid_field"),
        (b'{"id":"a","price":"9"}', b"a", "invalid_field"),
        (b'{"id":"a","stock":1.5}', b"a", "invalid_field"),
        (b'{"id":""}', b"", "invalid_field"),
        (b'{"id":"a"}', None, "missing_key"),
        (b'{"id":"a"}', b"b", "key_mismatch"),
        (b'{"id":"a","name":"' + b"x" * 9000 + b'"}', b"a", "too_large"),
    ],
)
def test_a_bad_item_is_a_value_with_a_reason(raw: bytes, key: bytes | None, reason: str) -> None:
    found = decode_item(raw, key)
    assert isinstance(found, Rejected)
    assert found.reason == reason


def test_an_item_survives_a_round_trip() -> None:
    item = CatalogItem(id="ä", price=1.5, stock=0)
    assert decode_item(encode_item(item), "ä".encode()) == item


def test_a_processor_without_a_catalog_tells_nobody() -> None:
    plan = make_plan(campaigns=[cheaper()])
    assert Processor(plan, FixedScorer(), campaign_only).catalog.get("p1") is None
