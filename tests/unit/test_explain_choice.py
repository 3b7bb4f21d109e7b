"""Why a variant: the chances that are told are those with which the engine chooses."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from app.core.campaign import Campaign, Novelty
from app.core.choices import DIMENSIONS, CampaignChoices, Choices, LinearArm
from app.core.explain import Explainer, UserView
from app.core.explain_choice import learned_arms
from app.core.index import PlanIndex
from app.explain.choice_report import because, decision_choice
from app.explain.report import user_report
from tests.support.plans import HOUR, FixedScorer, campaign, campaign_only, make_plan, on_event, variant
from tests.support.streams import START, USER, Stream, track

EYE = tuple(tuple(float(row == column) for column in range(DIMENSIONS)) for row in range(DIMENSIONS))


def arm(rate: float) -> LinearArm:
    return LinearArm((rate,) + (0.0,) * (DIMENSIONS - 1), EYE)


KNOWN = Choices(
    5,
    {
        "cart": CampaignChoices(
            best={"a": 0.9, "b": 0.1},
            linear={"a": arm(0.1), "b": arm(0.3), "c": arm(0.9)},
            stopped=frozenset({"c"}),
        )
    },
)


def cart(**fields: object) -> Campaign:
    variants = (variant("a", 3.0), variant("b", 1.0), variant("c", 4.0))
    return campaign("cart", on_event("Product Added"), variants=variants, **fields)


def stream(part: Campaign, choices: Choices = KNOWN) -> Stream:
    made = Stream(make_plan(campaigns=[part], consent_required=False))
    made.processor.choices = choices
    made.send(track("Product Viewed", START))
    return made


def view(made: Stream, choices: Choices = KNOWN) -> UserView:
    explainer = Explainer(PlanIndex(made.plan, {}), campaign_only)
    return explainer.user(USER, made.row, made.now_ms, FixedScorer(), None, choices)


@pytest.mark.parametrize("choose", ["fixed", "thompson", "contextual"])
def test_the_chances_are_those_that_a_decision_logs(choose: str) -> None:
    made = stream(cart(choose=choose))
    told = {one.name: one.propensity for one in view(made).campaigns[0].variants}
    made.send(track("Product Added", START))
    (sent,) = made.sends
    assert told[sent.variant] == (1.0 if choose == "fixed" else sent.propensity)
    assert told["c"] == 0.0
    assert sum(told.values()) == pytest.approx(1.0)


def test_a_variant_sleeps_because_it_was_stopped_or_is_not_meant_for_the_user() -> None:
    part = cart(choose="thompson")
    not_for_them = part.variants[1].__class__("b", 1.0, part.variants[1].render, lambda *_: False)
    made = stream(campaign("cart", part.trigger, variants=(part.variants[0], not_for_them, part.variants[2])))
    status = {one.name: one.status for one in view(made).campaigns[0].variants}
    assert status == {"a": "awake", "b": "not eligible", "c": "stopped"}


def test_what_was_seen_lately_is_told_to_be_worth_less() -> None:
    made = stream(cart(choose="contextual", novelty=Novelty(0.2, HOUR)))
    made.send(track("Product Added", START))
    (sent,) = made.sends
    made.at(HOUR)
    (seen,) = [one for one in view(made).campaigns[0].variants if one.tired]
    assert (seen.name, seen.tired) == (sent.variant, 0.1)
    assert because(seen).endswith("less 0.1: seen lately")


def shown(*parts: object) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_text()


def test_the_report_of_a_user_names_the_chances_and_their_reasons() -> None:
    text = shown(user_report(view(stream(cart(choose="thompson"))), 0))
    assert "variants of cart  the better, the likelier (Thompson sampling), what was learned up to version 5" in text
    assert "the best with probability 90.0%" in text
    assert "stopped: too many opt out" in text


def test_the_report_of_a_decision_names_what_chose_and_says_when_the_figures_are_of_another_version() -> None:
    made = stream(cart(choose="contextual"))
    made.send(track("Product Added", START))
    (sent,) = made.sends
    arms = learned_arms(KNOWN, "cart", sent.chooser, sent.features)
    assert {one.name: one.status for one in arms} == {"a": "awake", "b": "awake", "c": "stopped"}
    text = shown(*decision_choice(sent, arms, 5))
    assert "by the highest bound for this user now (LinUCB)" in text
    assert f"{sent.variant} had a probability of" in text
    assert "are gone" not in text
    assert "figures of version 6: those of 5 are gone" in shown(*decision_choice(sent, arms, 6))


def test_a_campaign_with_one_wording_has_nothing_to_choose() -> None:
    made = stream(campaign("cart", on_event("Product Added")))
    assert "variants of" not in shown(user_report(view(made), 0))
