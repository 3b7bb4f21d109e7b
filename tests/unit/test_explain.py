"""An explanation in examples: what is read, what decides, what is kept secret."""

from __future__ import annotations

import math

import pytest

from app.core import timers
from app.core.explain import Explainer, explain_score, row_as_json
from app.core.explain_gates import REASON_TEXTS
from app.core.expression_explain import Clause, Reading, deciding, explain_expression, format_age
from app.core.label_history import RATE_PRIOR_MEAN
from app.core.profile import Profile
from app.learning.scorer import FrozenModel
from app.policy.load import load_policy_text
from schemas.decisions import SUPPRESS_REASONS
from tests.property.test_core_judge import plan_of
from tests.support.plans import DAY, HOUR, FixedScorer, campaign, campaign_only, make_plan, on_event, segment
from tests.support.streams import START, USER, Stream, track


def clause_of(text: str, *events: str, now_ms: int = START) -> Clause:
    """The clause over the row of a user to whom these events happened now."""
    stream = Stream(plan_of([text]))
    for name in events or ("Application Opened",):
        stream.send(track(name, START))
    stream.now_ms = now_ms
    return explain_expression(text)(stream.row, now_ms, USER)


def test_a_test_says_what_it_read() -> None:
    clause = clause_of("count('Product Viewed', '7d') > 1", "Product Viewed", "Product Viewed", "Product Viewed")
    assert clause.holds
    assert clause.readings == (Reading("count('Product Viewed', '7d')", "3"),)


def test_did_says_how_long_ago() -> None:
    clause = clause_of("did('Order Completed', '7d')", "Order Completed", now_ms=START + 3 * DAY + 4 * HOUR)
    assert clause.readings == (Reading("since('Order Completed')", "3d 4h"),)
    never = clause_of("did('Order Completed', '7d')")
    assert (never.holds, never.readings[0].value) == (False, "never")


def test_did_with_a_filter_says_how_many_there_were() -> None:
    clause = clause_of("did('Order Completed', '7d', where=revenue > 5)", "Order Completed")
    assert clause.readings == (Reading("count('Order Completed', '7d', where=revenue > 5)", "0"),)


def test_arithmetic_shows_its_parts() -> None:
    clause = clause_of("sent() / orders() > 2")
    assert [(reading.text, reading.value) for reading in clause.readings] == [
        ("sent() / orders()", "missing"),
        ("sent()", "0"),
        ("orders()", "0"),
    ]


def test_a_missing_trait_is_called_missing() -> None:
    assert clause_of("trait('plan') == 'gold'").readings == (Reading("trait('plan')", "missing"),)


def test_only_what_decided_is_marked() -> None:
    clause = clause_of("orders() >= 0 and (orders() > 5 or not sent() > 3)")
    assert clause.holds
    assert [part.text for part in deciding([clause])] == ["orders() >= 0", "not sent() > 3"]


@pytest.mark.parametrize(
    ("age_ms", "text"),
    [(0, "0s"), (59_999, "59s"), (HOUR, "1h"), (DAY + 1000, "1d"), (-HOUR, "-1h"), (math.inf, "never")],
)
def test_ages_are_for_people(age_ms: float, text: str) -> None:
    assert format_age(age_ms) == text


def test_contributions_add_up_to_the_score() -> None:
    model = FrozenModel(3, -1.2, {"a": (0.5, 2.0, 0.0, 4.0), "c=x": (0.25, 0.0, -4.0, 4.0), "far": (1.0, 0.0, -1, 1)})
    features = {"a": 3.0, "c=x": 1.0, "far": 99.0, "unknown": 7.0, "broken": math.nan}
    shares = explain_score(features, model.explain_one)
    assert [share.feature for share in shares] == ["bias", "far", "a", "c=x"]
    probability = model.open_probability(features)
    assert sum(share.log_odds for share in shares) == pytest.approx(math.log(probability / (1 - probability)))


def test_a_users_view_holds_segments_campaigns_and_the_model() -> None:
    plan = make_plan(
        [segment("buyer", lambda profile: profile.orders > 0, "Order Completed")],
        campaigns=[campaign("thanks", on_event("Order Completed"), value=2.0)],
    )
    stream = Stream(plan, FixedScorer(RATE_PRIOR_MEAN))
    stream.send(track("Order Completed", START))
    view = Explainer(stream.processor.index, campaign_only).user(USER, stream.row, START, stream.scorer, None)
    assert [(one.name, one.inside, one.since_ms, one.clause) for one in view.segments] == [("buyer", True, START, None)]
    (thanks,) = view.campaigns
    assert (thanks.trigger, thanks.verdict, thanks.value) == ("on Order Completed", "send", 2.0)
    assert thanks.score == pytest.approx(2 * thanks.open_probability)
    assert view.model_version == stream.scorer.version
    assert view.policy_version == plan.version
    assert [one.campaign for one in view.pending] == ["thanks"]


def test_each_daily_look_says_what_it_is_for() -> None:
    text = """
    version: 1
    name: looks
    models: {purchase: {event: Order Completed, horizon: 7d}}
    personas: {}
    segments: [{name: likely, when: purchase_propensity() > 0.5 and open_probability() > 0.1}]
    campaigns: [{name: c, category: c, trigger: {event: Ping}, template: {title: t, body: b}}]
    """
    stream = Stream(load_policy_text(text))
    stream.send(track("Ping", START))
    view = Explainer(stream.processor.index, campaign_only).user(USER, stream.row, START, FixedScorer(), None)
    assert {one.key for one in view.timers if one.kind == "the daily look for"} == {"purchase", "persona", "opens"}


def test_every_reason_is_put_in_words() -> None:
    assert set(REASON_TEXTS) == set(SUPPRESS_REASONS)


def test_no_two_kinds_of_timers_share_a_number() -> None:
    kinds = {name: kind for name, kind in vars(timers).items() if name.isupper() and type(kind) is int}
    assert len(set(kinds.values())) == len(kinds) >= 5


def test_a_row_as_json_keeps_the_push_token_to_itself() -> None:
    shown = row_as_json(Profile(devices={"very-secret": ["ios", 1]}, traits={"city": "Ghent"}))
    assert "very-secret" not in str(shown)
    assert shown["traits"] == {"city": "Ghent"}
    assert shown["devices"] == 1
