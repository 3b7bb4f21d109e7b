"""Purchase propensity and churn risk: when an example begins, when its label is known, and what stays in the row."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from app.core import timers
from app.core.plan import ModelPlan
from app.core.propensity import PRIOR, next_look
from app.core.scores import score_of
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from schemas.events import NOTIFICATION_SENT, ORDER_COMPLETED
from tests.support.plans import DAY, HOUR, make_plan
from tests.support.streams import START, USER, Stream, track

PURCHASE = ModelPlan(event=ORDER_COMPLETED, horizon_ms=7 * DAY)
CHURN = ModelPlan(horizon_ms=7 * DAY)


def stream(**models: ModelPlan) -> Stream:
    return Stream(make_plan(models=models))


def look(name: str, model: ModelPlan, after_ms: int = START) -> int:
    return next_look(USER, name, model, after_ms)


def labels(user: Stream) -> list[tuple[str, int]]:
    return [(outcome.model, outcome.label) for outcome in user.outcomes]


@pytest.mark.parametrize(("bought", "label"), [(True, 1), (False, 0)])
def test_a_purchase_within_the_horizon_makes_the_label(bought: bool, label: int) -> None:
    user = stream(purchase=PURCHASE)
    user.send(track("Product Viewed", START))
    begun = look("purchase", PURCHASE)
    user.run_to(begun)
    if bought:
        user.at(begun + DAY - START).send(track(ORDER_COMPLETED, begun + DAY))
    user.run_to(begun + 8 * DAY)
    (outcome,) = user.outcomes
    assert (outcome.model, outcome.label, outcome.decided_ms) == ("purchase", label, begun)
    assert outcome.score == PRIOR
    assert outcome.features["act_since_log_h"] > 0
    assert USER not in outcome.id


def test_no_label_is_told_before_its_horizon_has_passed_even_when_it_is_known() -> None:
    user = stream(purchase=PURCHASE)
    user.send(track("Product Viewed", START))
    begun = look("purchase", PURCHASE)
    user.run_to(begun)
    user.at(begun + HOUR - START).send(track(ORDER_COMPLETED, begun + HOUR))
    user.run_to(begun + 7 * DAY)
    assert user.outcomes == []
    user.run_to(begun + 8 * DAY)
    assert labels(user) == [("purchase", 1)]


@pytest.mark.parametrize("after_ms", [0, 7 * DAY + 1])
def test_what_happens_outside_the_horizon_does_not_count(after_ms: int) -> None:
    user = stream(purchase=PURCHASE)
    user.send(track("Product Viewed", START))
    begun = look("purchase", PURCHASE)
    user.run_to(begun)
    user.at(begun + 7 * DAY + HOUR - START).send(track(ORDER_COMPLETED, begun + after_ms))
    user.run_to(begun + 8 * DAY)
    assert labels(user)[0] == ("purchase", 0)


def test_a_late_event_still_counts_in_the_hour_after_the_horizon() -> None:
    user = stream(purchase=PURCHASE)
    user.send(track("Product Viewed", START))
    begun = look("purchase", PURCHASE)
    user.run_to(begun + 7 * DAY)
    user.at(begun + 7 * DAY + HOUR // 2 - START).send(track(ORDER_COMPLETED, begun + 6 * DAY))
    assert labels(user) == []
    user.run_to(begun + 7 * DAY + HOUR)
    assert labels(user) == [("purchase", 1)]


@pytest.mark.parametrize(("came", "label"), [(True, 0), (False, 1)])
def test_whoever_does_nothing_has_churned(came: bool, label: int) -> None:
    user = stream(churn=CHURN)
    user.send(track("Product Viewed", START))
    begun = look("churn", CHURN)
    user.run_to(begun)
    user.send(track(NOTIFICATION_SENT, begun + HOUR))  # not the user's own doing
    if came:
        user.at(begun + 6 * DAY - START).send(track("Product Viewed", begun + 6 * DAY))
    user.run_to(begun + 8 * DAY)
    assert labels(user) == [("churn", label)]


def test_a_churned_user_makes_one_example_and_then_no_timer_until_they_come_back() -> None:
    user = stream(churn=CHURN)
    user.send(track("Product Viewed", START))
    user.run_to(START + 100 * DAY)
    assert labels(user) == [("churn", 1)]
    assert user.row.timers == []
    user.at(100 * DAY).send(track("Product Viewed", START + 100 * DAY))
    assert [timer.kind for timer in user.row.timers] == [timers.LOOK]


def test_examples_follow_each_other_as_long_as_the_user_is_there() -> None:
    user = stream(churn=CHURN, purchase=PURCHASE)
    for day in range(40):
        user.at(day * DAY).send(track("Product Viewed", START + day * DAY))
        user.run_to(START + day * DAY)
    assert labels(user).count(("churn", 0)) == labels(user).count(("purchase", 0)) == 5
    assert len({outcome.id for outcome in user.outcomes}) == 10


def test_looks_do_not_depend_on_what_the_user_does() -> None:
    early, late = stream(churn=CHURN), stream(churn=CHURN)
    early.send(track("Product Viewed", START))
    late.at(HOUR // 2).send(track("Product Viewed", START + HOUR // 2))
    grid = {(one.row.due_ms() - look("churn", CHURN)) % DAY for one in (early, late)}
    assert grid == {0}


def test_the_grid_of_users_is_spread_over_the_day() -> None:
    phases = sorted(next_look(f"u{number}", "churn", CHURN, START) - START for number in range(1_000))
    assert 0 < phases[0] < HOUR
    assert 23 * HOUR < phases[-1] <= DAY
    assert 10 * HOUR < phases[500] < 14 * HOUR


class Seen:
    """A model that says how long the user was away."""

    version = 7

    def open_probability(self, features: Mapping[str, float]) -> float:
        return min(features["act_since_log_h"] / 10, 1.0)


def test_the_newest_score_stays_in_the_row_and_is_logged_with_the_example() -> None:
    user = stream(churn=CHURN)
    user.processor.scorers["churn"] = Seen()
    user.send(track("Product Viewed", START))
    assert score_of(user.row, "churn") is None
    begun = look("churn", CHURN)
    user.run_to(begun)
    first = score_of(user.row, "churn")
    user.run_to(begun + 3 * DAY)
    assert first is not None
    assert first < (score_of(user.row, "churn") or 0.0)
    user.run_to(begun + 8 * DAY)
    assert (user.outcomes[0].score, user.outcomes[0].model_version) == (first, 7)


def test_a_replayed_event_changes_nothing() -> None:
    user = stream(purchase=PURCHASE)
    user.send(track(ORDER_COMPLETED, START))
    before = user.row
    user.process(user.log)
    assert user.row == before


def test_a_policy_without_such_models_keeps_nothing_in_the_row() -> None:
    user = stream(open=ModelPlan())
    user.send(track("Product Viewed", START))
    assert user.row.propensity is None
    assert user.row.timers == []


def test_a_model_that_the_policy_dropped_is_forgotten_at_its_next_look() -> None:
    user = stream(churn=CHURN)
    user.send(track("Product Viewed", START))
    begun = look("churn", CHURN)
    user.run_to(begun)
    again = Stream(make_plan(), rows=user.rows, now_ms=begun + DAY)
    again.fire()
    assert again.row.timers == []
    assert again.row.propensity is not None
    assert (again.row.propensity.watches, again.row.propensity.scores) == ({}, {})


POLICY = """
version: 1
name: p
defaults: {consent: assumed}
models:
  churn: {horizon: 7d}
segments:
  - {name: leaving, when: churn_risk() >= 0.45}
  - {name: same, when: propensity("churn") >= 0.45}
"""


def test_a_segment_follows_the_score_from_look_to_look() -> None:
    user = Stream(load_policy_text(POLICY))
    user.processor.scorers["churn"] = Seen()
    user.send(track("Product Viewed", START))
    seen = []
    for _ in range(6):
        user.at(user.row.due_ms() - START).fire()
        members = {change.segment for change in user.changes if change.change == "enter"}
        score = score_of(user.row, "churn")
        assert score is not None
        seen.append(score >= 0.45)
        assert members == ({"leaving", "same"} if seen[-1] else set())
    assert {False, True} == set(seen), "the score passes the threshold on the way"


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ("churn: {event: Order Completed}", "horizon"),
        ("open: {horizon: 7d}", "label_horizon"),
        ("churn: {horizon: 1m}", "models"),
        ("open: {kind: open-lr, challenger: open-lr}", "another kind"),
        ("open: {kind: forest}", "kind"),
    ],
)
def test_a_mistake_in_a_model_is_told_with_its_place(models: str, problem: str) -> None:
    with pytest.raises(PolicyErrors) as raised:
        load_policy_text(POLICY.replace("churn: {horizon: 7d}", models))
    assert "models" in str(raised.value)
    assert problem in str(raised.value)


def test_the_policy_says_what_is_learned() -> None:
    text = POLICY.replace("churn: {horizon: 7d}", "churn: {horizon: 7d, kind: open-ftrl, on_drift: fall_back}")
    model = load_policy_text(text).models["churn"]
    assert model == ModelPlan("open-ftrl", "", "fall_back", "", 7 * DAY)
