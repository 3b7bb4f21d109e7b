"""Hashed categories: bounded, signed, the same everywhere, and worth learning from."""

from __future__ import annotations

import random

import pytest

from app.core.campaign import Campaign, Trigger
from app.core.features import FEATURES_MAX, open_features
from app.core.hashing import BUCKETS, hashed, trait_feature
from app.core.plan import Plan
from app.core.profile import Profile
from app.learning.mix import MixModel
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text

CART = Campaign(name="cart", category="offers", trigger=Trigger("event", event="Product Added"), variants=())
NOW = 1_700_000_000_000


def test_a_hash_is_the_same_for_ever() -> None:
    assert hashed("t.city", "Lyon") == hashed("t.city", "Lyon")
    assert hashed("d", "Pixel 9") == ("d#=465", 1.0)


def test_many_values_take_few_features_of_both_signs_evenly() -> None:
    found = [hashed("t.city", f"city {n}") for n in range(20_000)]
    assert len({name for name, _ in found}) == BUCKETS
    assert abs(sum(sign for _, sign in found)) < 3 * 20_000**0.5


def test_what_two_words_teach_each_other_is_nothing_on_average() -> None:
    words = [dict([hashed("t.city", f"city {n}")]) for n in range(600)]
    products = [a.get(name, 0.0) * sign for a in words[:300] for b in words[300:] for name, sign in b.items()]
    assert abs(sum(products)) / len(products) < 3 * (1 / BUCKETS / len(products)) ** 0.5


@pytest.mark.parametrize(
    ("value", "expected"), [(31, ("t.x", 31.0)), (2.5, ("t.x", 2.5)), (None, None), ([1], None), ("", None)]
)
def test_numbers_stay_numbers_and_what_is_not_plain_is_left_out(value: object, expected: object) -> None:
    assert trait_feature("x", value) == expected


def test_traits_that_a_policy_names_are_features_and_others_are_not() -> None:
    traits = {f"trait{n}": f"v{n}" for n in range(20)} | {"age": 40, "vip": True}
    plan = Plan(version="1", traits=("age", "vip", "trait3", "missing"))
    row = Profile(traits=traits, device="Strange Phone 3000")
    found = {name: value for name, value in open_features(row, CART, NOW, plan).items() if name.startswith(("t.", "d"))}
    assert found["t.age"] == 40.0
    assert sum(name.startswith("t.") for name in found) == 3
    assert [name for name in found if name.startswith("d#=")]
    assert len(open_features(row, CART, NOW, plan)) <= FEATURES_MAX


def test_a_model_learns_from_a_city_among_two_thousand() -> None:
    rng = random.Random(2)
    model = MixModel()
    rates = {f"city {n}": rng.choice((0.05, 0.6)) for n in range(2_000)}
    common = [f"city {n}" for n in range(40)]
    for _ in range(12_000):
        city = rng.choice(common) if rng.random() < 0.8 else f"city {rng.randrange(2_000)}"
        model.learn_one(dict([hashed("t.city", city), ("c=cart", 1.0)]), int(rng.random() < rates[city]))
    p = {city: model.predict_proba_one(dict([hashed("t.city", city), ("c=cart", 1.0)])) for city in common}
    assert sum((p[city] > 0.3) == (rates[city] > 0.3) for city in common) >= 36


POLICY = """
version: "1"
name: p
models:
  {models}
segments: []
campaigns: []
"""


def test_a_policy_names_the_traits_of_its_open_model() -> None:
    assert load_policy_text(POLICY.format(models="open: {traits: [city, age]}")).traits == ("city", "age")


@pytest.mark.parametrize("models", ["churn: {horizon: 7d, traits: [city]}", "open: {traits: [a=b]}"])
def test_a_mistake_in_the_traits_is_told_with_its_place(models: str) -> None:
    with pytest.raises(PolicyErrors, match="traits"):
        load_policy_text(POLICY.format(models=models))
