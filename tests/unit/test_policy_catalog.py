"""Triggers on the catalog in a policy file: what they compile to, and what is refused."""

from __future__ import annotations

import textwrap

import pytest

from app.core.campaign import ItemTrigger, Trigger
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from tests.support.plans import DAY, MINUTE
from tests.support.shelf import Shelf
from tests.support.streams import START, track

POLICY = """
version: 1
name: shop
defaults: {consent: assumed}
campaigns:
  - name: cheaper
    category: wish
    trigger:
      price_drop: {by: 20%, price_from: 5, interest: [carted, favourited], within: 14d, affinity: 3}
      where: category == "SHOES"
    template:
      title: '{{ item.name | default: "Your item" }} is {{ item.drop_percent }} % off'
      body: 'Now {{ item.price }} instead of {{ item.price_before }}.'
      deep_link: shop://product/{{ item.id | url_encode }}
  - name: back
    category: wish
    trigger: {back_in_stock: {interest: waited}}
    template: {title: 'It is back', body: '{{ item.stock }} left'}
"""


def refused(text: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        load_policy_text(textwrap.dedent(text), "p.yaml")
    return str(caught.value)


def test_the_triggers_compile() -> None:
    cheaper, back = load_policy_text(POLICY).campaigns
    assert cheaper.trigger.item == ItemTrigger(2 | 4, 14 * DAY, 3.0, 0.2, 5.0)
    assert back.trigger == Trigger("back_in_stock", item=ItemTrigger(8))


def test_a_message_says_what_the_item_is_now() -> None:
    stream = Shelf(load_policy_text(POLICY))
    stream.put("p 1", price=100, category="SHOES")
    stream.send(track("Product Added", START, product_id="p 1"))
    stream.at(MINUTE).put("p 1", price=75, category="SHOES")
    stream.offer()
    content = stream.sends[0].content
    assert content is not None
    assert content.title == "Item p 1 is 25 % off"
    assert content.body == "Now 75 instead of 100."
    assert content.deep_link == "shop://product/p+1"


def test_item_is_known_only_where_there_is_one() -> None:
    text = POLICY.replace("trigger: {back_in_stock: {interest: waited}}", "trigger: {event: Hello}")
    assert "'item' is there only in a campaign with a trigger on the catalog" in refused(text)


def test_an_unknown_fact_is_a_mistake() -> None:
    assert "an item has no 'prise'" in refused(POLICY.replace("item.price }}", "item.prise }}"))


@pytest.mark.parametrize("change", ["by: 100%", "affinity: 0", "within: 100d", "interest: [loved]"])
def test_values_out_of_range_are_mistakes(change: str) -> None:
    name = change.partition(":")[0]
    assert f"price_drop.{name}" in refused(
        f"version: 1\nname: x\ncampaigns:\n  - name: c\n    category: c\n    trigger: {{price_drop: {{{change}}}}}\n"
        "    template: {title: t, body: b}\n"
    )
