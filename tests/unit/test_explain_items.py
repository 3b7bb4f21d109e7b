"""What is told of wishes, products and percentiles: what the code that decides would do."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from app.core.browsing import Item
from app.core.explain import Explainer, UserView
from app.core.item_table import ItemTable
from app.core.percentiles import cut_id
from app.core.processor import Processor
from app.explain.report import decision_report, user_report
from app.policy.load import load_policy_text
from schemas.percentiles import Percentiles, Threshold
from tests.support.plans import campaign_only
from tests.support.shelf import Shelf
from tests.support.streams import START, USER, track

MINUTE = 60_000
NUMBER = "count('Product Viewed', '1d')"
POLICY = f"""
version: 1
name: shop
defaults: {{consent: assumed}}
segments:
  - {{name: keen, when: "top(10, {NUMBER})"}}
campaigns:
  - name: cheaper
    category: wish
    trigger: {{price_drop: {{by: 10%, interest: [viewed, carted]}}}}
    quiet_hours: ignore
    template: {{title: T, body: B}}
  - name: more
    category: promo
    trigger: {{event: Ping}}
    recommend: {{kind: [viewed, popular], count: 3, exclude_bought: true}}
    template: {{title: 'Try {{{{ items[0].name | default: "this" }}}}', body: B}}
"""
TABLE = ItemTable(version=1, top=(Item("p9", "", "Lamp"), Item("p1", "", "Shoe"), Item("p2", "", "Hat")))


def shelf() -> Shelf:
    made = Shelf(load_policy_text(POLICY))
    made.put("p1", price=50.0)
    made.at(MINUTE).send(track("Product Viewed", START + MINUTE, product_id="p1"))
    made.at(2 * MINUTE).send(track("Product Added", START + 2 * MINUTE, product_id="gone"))
    made.at(3 * MINUTE).send(track("Order Completed", START + 3 * MINUTE, products=[{"product_id": "p2"}]))
    return made


def view(made: Shelf) -> UserView:
    known = {NUMBER: Percentiles(number=NUMBER, partition=-1, at_ms=START, users=400, cuts=[THRESHOLD])}
    explainer = Explainer(made.processor.index, campaign_only)
    return explainer.user(
        USER, made.row, made.now_ms, made.scorer, None, items=TABLE, catalog=made.catalog, percentiles=known
    )


THRESHOLD = Threshold("top 10", 7, 36.0, 0.095)


def test_wishes_are_told_with_what_the_catalog_says_of_them() -> None:
    made = shelf()
    gone, shoe = view(made).wishes
    assert (gone.item, gone.kinds, gone.price, gone.price_now, gone.in_stock) == ("", ("carted",), None, None, None)
    assert (shoe.item, shoe.name, shoe.kinds, shoe.price, shoe.told) == ("p1", "Item p1", ("viewed",), 50.0, -1)
    made.at(4 * MINUTE).put("p1", price=40.0, stock=3)
    made.offer()
    (shoe,) = (one for one in view(made).wishes if one.item)
    assert (shoe.price, shoe.price_now, shoe.told) == (40.0, 40.0, 1)
    assert [sent.campaign for sent in made.sends] == ["cheaper"]


def test_a_slot_shows_what_a_message_would_have_and_where_it_comes_from() -> None:
    made = shelf()
    (more,) = (one for one in view(made).campaigns if one.name == "more")
    assert [(one.id, one.source) for one in more.products] == [("p1", "viewed"), ("p9", "popular")]
    made.processor.items = TABLE
    made.at(5 * MINUTE).send(track("Ping", START + 5 * MINUTE))
    (sent,) = made.sends
    assert sent.content is not None
    assert sent.content.title == f"Try {more.products[0].name or 'this'}"
    assert sent.items == [["p1", "viewed"], ["p9", "popular"]]
    out = StringIO()
    Console(file=out, width=300).print(decision_report(sent, (), "", 0))
    assert "p1 (viewed), p9 (popular)" in out.getvalue()


def test_a_threshold_is_told_with_its_beginning_and_its_users() -> None:
    (found,) = view(shelf()).thresholds
    assert (found.name, found.value, found.users, found.since_ms) == (f"top 10 of {NUMBER}", 36.0, 400, START)


def test_the_report_has_all_of_it() -> None:
    made = shelf()
    out = StringIO()
    Console(file=out, width=300).print(user_report(view(made), 0))
    text = out.getvalue()
    for part in (
        "begins at 36",
        "then 9.5% of 400 users",
        "an item that the catalog does not have",
        "saw it at 50, not told yet",
        "Lamp (popular)",
    ):
        assert part in text, text


def test_a_user_without_any_of_it_is_told_nothing_of_it() -> None:
    plan = load_policy_text("version: 1\nname: plain\nsegments:\n  - {name: buyer, when: orders() > 0}\n")
    made = Shelf(plan)
    made.send(track("Product Viewed", START, product_id="p1"))
    explainer = Explainer(Processor(plan, made.scorer, campaign_only).index, campaign_only)
    found = explainer.user(USER, made.row, START, made.scorer, None)
    assert (found.wishes, found.thresholds, found.campaigns) == ((), (), ())
    assert cut_id(NUMBER, "top 10") not in made.processor.buckets
