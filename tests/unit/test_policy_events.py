"""Event names that nobody knows: which are worth a warning, and where it points."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from app.policy.errors import PolicyErrors
from app.policy.event_names import SPECIFIED_EVENTS, doubtful, unseen
from app.policy.load import load_policy, load_policy_text

ROOT = Path(__file__).parents[2]
CAMPAIGN = """
campaigns:
  - name: c
    category: c
    trigger: {absence: {after: Product Aded, without: [Order Completed], for: 15m}}
    template: {title: t, body: b}
"""


def warnings_of(text: str) -> tuple[str, ...]:
    return load_policy_text("version: 1\nname: t\n" + dedent(text).lstrip("\n"), "p.yaml").warnings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Prodct Viewed", "Product Viewed"), ("Prodcut Viewed", "Product Viewed"),
        ("Products Viewed", "Product Viewed"), ("order_completed", "Order Completed"),
        ("OrderCompleted", "Order Completed"), ("Order Complete", "Order Completed"),
        ("Notification Open", "Notification Opened"),
    ],
)  # fmt: skip
def test_a_slip_of_the_finger_or_another_spelling_is_doubted(name: str, meant: str) -> None:
    assert doubtful({name: 9}) == {name: meant}


@pytest.mark.parametrize(
    "names",
    [
        ["Level 1 Completed", "Level 2 Completed"], ["Product Liked", "Product Unliked"], ["Ping", "Pong"],
        ["Subscription Started", "Subscription Restarted"], ["Push Enabled", "Push Disabled"],
        ["Song Played", "Song Paused"], ["Article Read", "Article Shared"], ["日本", "日木"], ["", "*", "?"],
        sorted(SPECIFIED_EVENTS),
    ],
)  # fmt: skip
def test_different_events_are_not_doubted(names: list[str]) -> None:
    assert doubtful(dict.fromkeys(names, 1)) == {}


def test_of_two_names_alike_the_one_that_is_used_less_is_doubted() -> None:
    assert doubtful({"Artcle Read": 1, "Article Read": 2}) == {"Artcle Read": "Article Read"}
    assert doubtful({"Article Read": 1, "Artcle Read": 1}) == {"Artcle Read": "Article Read"}


def test_a_warning_names_file_line_field_and_the_nearest_name() -> None:
    segments = """
    segments:
      - name: a
        when: >-
          count("Article Read", "1h") > 2
          and not did("order_completed", "7d")
      - {name: b, when: 'sum("Artcle Read.minutes", "7d") > 3'}
    """
    expected = [
        "p.yaml:7:19: segments[0].when: no known event is called 'order_completed'",
        "p.yaml:8:26: segments[1].when: no known event is called 'Artcle Read'",
        "p.yaml:13:32: campaigns[0].trigger.absence.after: no known event is called 'Product Aded'",
    ]
    found = warnings_of(dedent(segments) + CAMPAIGN)
    assert [warning.partition(" (")[0] for warning in found] == expected
    assert [warning.partition("did you mean ")[2] for warning in found] == [
        "'Order Completed'?", "'Article Read'?", "'Product Added'?",
    ]  # fmt: skip


def test_a_policy_that_lists_its_events_is_not_warned() -> None:
    assert warnings_of("events: [Product Aded]" + CAMPAIGN) == ()
    with pytest.raises(PolicyErrors, match=r"unknown event 'Product Aded'.*'Product Added'"):
        warnings_of("events: [Ping]" + CAMPAIGN)


@pytest.mark.parametrize("name", ["shop", "news", "wishlist"])
def test_nothing_in_the_shipped_policies_is_doubted(name: str) -> None:
    assert load_policy(ROOT / "policies" / f"{name}.yaml").warnings == ()


def test_what_nobody_sends_is_told_with_what_somebody_does() -> None:
    places = {"Order Completed": "p.yaml:1:1: a", "Ping": "p.yaml:2:1: b", "Gone": "p.yaml:3:1: c"}
    warnings, rest = unseen(places, {"order_completed": 1200, "Ping": 1})
    assert warnings == [
        "p.yaml:1:1: a: nobody sends 'Order Completed'; did you mean 'order_completed' (1,200 of the newest events)?"
    ]
    assert rest == ["Gone"]
    assert unseen(places, {}) == ([], []), "of an empty topic nothing can be said"


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("churn_rsk() > 0.1", "unknown function 'churn_rsk'; did you mean 'churn_risk'?"),
        (
            "churn_risk() > 0.1",
            "no model 'churn' with a horizon; write under models, for example, churn: {horizon: 30d}",
        ),
        ('propensity("purchse") > 0.1', "no model 'purchse' with a horizon; did you mean 'purchase'?"),
        ('propensity("open") > 0.1', "the model 'open' learns opens: write open_probability()"),
    ],
)
def test_a_score_of_a_model_that_the_policy_has_not_is_a_mistake(when: str, told: str) -> None:
    models = "models: {purchase: {event: Order Completed, horizon: 7d}}\n"
    assert warnings_of(models + "segments: [{name: s, when: purchase_propensity() > 0.1}]") == ()
    with pytest.raises(PolicyErrors) as caught:
        warnings_of(models + f"segments:\n  - name: s\n    when: {when}")
    assert str(caught.value).startswith("p.yaml:6:")
    assert told in str(caught.value)
