"""Personas in a row: when a user is looked at, what the learner hears, and what a policy can say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from app.core import timers
from app.core.activity import Activity, fold
from app.core.explain import Explainer
from app.core.ids import BUCKETS, bucket
from app.core.interest import level_of
from app.core.persona_table import Persona, PersonaTable
from app.core.persona_vector import BANDS, CATEGORIES_MAX, COMPOSITIONS, MEASURES, vector_of
from app.core.personas import ACTIVE_MS
from app.core.plan import ModelPlan, PersonaPlan
from app.core.profile import Profile
from app.core.scores import persona_of
from app.explain.report import read_by
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from schemas.outcomes import NO_EXAMPLE, Outcome
from tests.support.plans import DAY, HOUR, FixedScorer, campaign_only, make_plan
from tests.support.streams import START, SUBJECTS, USER, Stream, track

NIGHT = Persona(1, "night-time visitors", (1.0, 0.0))
DAYTIME = Persona(2, "morning visitors", (0.0, 1.0))
TABLE = PersonaTable(5, {"h=after midnight": (0, 1.0), "h=morning": (1, 1.0)}, (NIGHT, DAYTIME))
POLICY = """
version: 1
name: p
defaults: {consent: assumed}
personas: {}
segments:
  - {name: owls, when: persona() == "night-time visitors"}
  - {name: larks, when: 'persona() in ["morning visitors", "early birds"]'}
"""


def stream(table: PersonaTable | None = None, **fields: Any) -> Stream:
    made = Stream(make_plan(personas=PersonaPlan(**fields)))
    if table is not None:
        made.processor.personas = table
    return made


def vectors(user: Stream) -> list[Outcome]:
    return [outcome for outcome in user.outcomes if outcome.persona >= 0]


def at_hour(hour: int, day: int = 0) -> int:
    """That hour (UTC, which is the plan's zone) of a day, in ms since the start at 09:00."""
    return day * DAY + ((hour - 9) % 24) * HOUR


def visits(user: Stream, hour: int, days: range) -> None:
    for day in days:
        at_ms = at_hour(hour, day)
        user.run_to(START + at_ms) if user.rows else None
        user.at(at_ms).send(track("Product Viewed", START + at_ms, category="shoes"))


def test_the_learner_has_one_vector_of_a_user_and_day_however_busy_they_are() -> None:
    busy, calm = stream(), stream()
    for day in range(10):
        for number in range(40):
            at_ms = day * DAY + number * 60_000
            busy.at(at_ms).send(track("Product Viewed", START + at_ms))
        calm.at(day * DAY).send(track("Product Viewed", START + day * DAY))
        for user in (busy, calm):
            user.run_to(START + day * DAY + 23 * HOUR)
    assert len(vectors(busy)) == len(vectors(calm)) == 10
    assert len({outcome.id for outcome in vectors(busy)}) == 10
    assert USER not in str(vectors(busy))


def test_a_vector_is_no_example_of_any_model() -> None:
    user = stream()
    user.send(track("Product Viewed", START))
    user.run_to(START + DAY)
    (outcome,) = user.outcomes
    assert (outcome.label, outcome.campaign, outcome.persona, outcome.model) == (NO_EXAMPLE, "", 0, "open")
    assert outcome.features["bucket"] == bucket(USER, "persona")


def test_who_stays_away_is_not_looked_at_again_and_keeps_their_persona() -> None:
    user = stream(TABLE)
    visits(user, 2, range(5))
    user.run_to(START + 200 * DAY)
    assert user.row.timers == []
    assert persona_of(user.row) == NIGHT.name
    last_ms = max(outcome.decided_ms for outcome in vectors(user))
    assert last_ms <= user.row.seen_ms + ACTIVE_MS
    user.at(201 * DAY).send(track("Product Viewed", START + 201 * DAY))
    assert [timer.ref for timer in user.row.timers] == [timers.PERSONAS]


def test_the_nearest_persona_is_in_the_row_and_follows_what_the_user_does() -> None:
    user = stream(TABLE)
    visits(user, 2, range(5))
    user.run_to(START + 6 * DAY)
    assert persona_of(user.row) == NIGHT.name
    assert user.effects.counts["persona_changes", "other"] == 0
    visits(user, 9, range(7, 40))
    user.run_to(START + 41 * DAY)
    assert persona_of(user.row) == DAYTIME.name


def test_without_a_snapshot_nobody_has_a_persona_and_without_a_newer_one_everybody_keeps_theirs() -> None:
    user = stream()
    visits(user, 2, range(2))
    assert persona_of(user.row) is None
    user.processor.personas = TABLE
    user.run_to(START + 3 * DAY)
    assert persona_of(user.row) == NIGHT.name
    restarted = Stream(user.plan, rows=user.rows)
    restarted.run_to(START + 5 * DAY)
    assert persona_of(restarted.row) == NIGHT.name


def test_who_stands_between_two_personas_stays_with_the_one_they_have() -> None:
    between = {"h=after midnight": 0.49, "h=morning": 0.51}
    assert TABLE.nearest(between) is DAYTIME
    assert TABLE.nearest(between, stay_with=1) is NIGHT
    assert TABLE.nearest(between, stay_with=9) is DAYTIME, "a persona that is gone holds nobody"
    assert TABLE.nearest({"h=morning": 0.9}, stay_with=1) is DAYTIME
    assert PersonaTable().nearest(between, stay_with=1) is None


def test_only_the_share_that_the_learner_wishes_teaches_but_everybody_has_a_persona() -> None:
    share = bucket(USER, "persona") / BUCKETS
    silent = stream(PersonaTable(1, TABLE.columns, TABLE.personas, share=share))
    heard = stream(PersonaTable(1, TABLE.columns, TABLE.personas, share=share + 1 / BUCKETS))
    for user in (silent, heard):
        visits(user, 2, range(3))
        user.run_to(START + 4 * DAY)
        assert persona_of(user.row) == NIGHT.name
    assert not vectors(silent)
    assert vectors(heard)


def test_a_script_does_not_teach() -> None:
    user = stream()
    user.send(*(track("Product Viewed", START) for _ in range(601)))
    user.row.timers[0].due_ms = START + 1
    user.at(1).fire()
    assert not vectors(user)


def test_a_replayed_event_changes_nothing() -> None:
    user = stream(TABLE)
    visits(user, 2, range(3))
    before = user.row
    user.process(user.log)
    assert user.row == before


def test_a_policy_without_personas_keeps_nothing_in_the_row() -> None:
    user = Stream(make_plan())
    user.send(track("Product Viewed", START))
    assert user.row.propensity is None
    assert user.row.timers == []


def test_a_policy_that_drops_personas_forgets_them_at_the_next_look() -> None:
    user = stream(TABLE)
    visits(user, 2, range(3))
    user.run_to(START + 4 * DAY)
    again = Stream(make_plan(models={"churn": ModelPlan(horizon_ms=7 * DAY)}), rows=user.rows)
    again.run_to(START + 6 * DAY)
    assert persona_of(again.row) is None
    assert timers.find(again.row, timers.LOOK, timers.PERSONAS, "") is None


def test_an_erased_user_has_no_persona() -> None:
    user = stream(TABLE)
    visits(user, 2, range(3))
    request = SUBJECTS.request(USER, "r1")
    user.send(msgspec.json.encode(msgspec.to_builtins(request)), key=USER.encode())
    assert user.row.erased_ms
    assert user.row.propensity is None


def test_an_explanation_says_the_persona_and_what_a_condition_read() -> None:
    user = Stream(load_policy_text(POLICY))
    user.processor.personas = TABLE
    visits(user, 2, range(2))
    user.run_to(START + 3 * DAY)
    explainer = Explainer(user.processor.index, campaign_only)
    view = explainer.user(USER, user.row, user.now_ms, FixedScorer(), None)
    assert view.profile["persona"] == NIGHT.name
    owls = view.segments[0]
    assert owls.inside
    assert owls.clause is not None
    assert NIGHT.name in read_by(owls.clause)


# -- the vector


def vector(**fields: Any) -> dict[str, float]:
    activity = fields.pop("activity", Activity())
    return vector_of(Profile(**fields), activity, START)


def test_a_vector_is_bounded_finite_and_names_nobody() -> None:
    activity = Activity()
    for number in range(500):
        fold(activity, START - number * HOUR, number % 24)
    affinity = {f"c{number}": level_of(number + 1, START) for number in range(50)}
    x = vector(
        activity=activity, affinity=affinity, device="ios", orders=10**6, revenue_milli=10**15, order_ms=START, sent=5
    )
    assert len(x) == len(MEASURES) + len(BANDS) + CATEGORIES_MAX + 1
    assert all(math.isfinite(value) and abs(value) < 50 for value in x.values())
    assert {name.partition("=")[0] for name in x if "=" in name} == set(COMPOSITIONS)
    assert set(MEASURES) == {name for name in x if "=" not in name}


def test_an_empty_row_has_a_vector_of_priors() -> None:
    x = vector()
    assert x["orders_month_log"] == x["events_week_log"] == x["active_share"] == 0.0
    assert "order_value_log" not in x, "who has no order has no value of one"
    assert {round(x[f"h={band}"], 6) for band in BANDS} == {round(math.sqrt(1 / len(BANDS)), 6)}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"orders": 4, "order_ms": START - DAY, "first_ms": START - 30 * DAY}, "orders_month_log"),
        ({"orders": 1, "order_ms": START - DAY, "revenue_milli": 90_000}, "order_value_log"),
        ({"sent": 10, "opened": 8}, "open_logit"),
        ({"sent": 10, "dismissed": 8}, "dismissed_share"),
        ({"affinity": {"shoes": level_of(3.0, START)}}, "k=shoes"),
    ],
)
def test_what_a_user_does_raises_the_number_that_speaks_of_it(fields: Mapping[str, Any], name: str) -> None:
    assert vector(**fields)[name] > vector().get(name, 0.0)


def test_what_was_bought_lately_lowers_the_recency() -> None:
    recent, old, never = vector(order_ms=START - DAY), vector(order_ms=START - 20 * DAY), vector()
    assert recent["recency_log_d"] < old["recency_log_d"] < never["recency_log_d"]


# -- the policy


def test_a_segment_follows_the_persona_from_look_to_look() -> None:
    user = Stream(load_policy_text(POLICY))
    visits(user, 2, range(2))
    assert user.changes == []
    user.processor.personas = TABLE
    user.run_to(START + 4 * DAY)
    assert [(change.segment, change.change, change.cause) for change in user.changes] == [("owls", "enter", "clock")]
    visits(user, 9, range(5, 40))
    user.run_to(START + 41 * DAY)
    assert [(change.segment, change.change) for change in user.changes[1:]] == [("owls", "leave"), ("larks", "enter")]


def test_a_policy_may_name_personas_itself() -> None:
    user = Stream(load_policy_text(POLICY.replace("personas: {}", "personas: {names: {p1: early birds}}")))
    user.processor.personas = TABLE
    visits(user, 2, range(3))
    user.run_to(START + 4 * DAY)
    assert [change.segment for change in user.changes] == ["larks"]


@pytest.mark.parametrize(
    ("personas", "problem"),
    [
        ("personas: {count_max: 1}", "personas.count_max"),
        ("personas: {share_min: 50%}", "personas.share_min"),
        ("personas: {count_min: 9, count_max: 5}", "count_min must not exceed"),
        ("personas: {names: {first: x}}", "personas"),
        ("description: none", "needs the policy to have `personas`"),
    ],
)
def test_a_mistake_is_told_with_its_place(personas: str, problem: str) -> None:
    with pytest.raises(PolicyErrors) as raised:
        load_policy_text(POLICY.replace("personas: {}", personas))
    assert problem in str(raised.value)


def test_the_policy_says_how_many_and_how_small() -> None:
    text = POLICY.replace(
        "personas: {}", "personas: {count_min: 4, count_max: 5, share_min: 10%, names: {p2: early birds}}"
    )
    assert load_policy_text(text).personas == PersonaPlan(5, 0.1, {"p2": "early birds"}, 4)
