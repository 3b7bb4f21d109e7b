"""What an explanation says is what the engine does: clauses agree with the compiled judge, gates with the arbiter."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.explain import Explainer
from app.core.expression_context import ExpressionContext
from app.core.expression_explain import Clause, explain_expression, outline
from app.core.expressions import compile_expression
from app.core.plan import AdaptiveCaps, Cap, QuietHours
from tests.property.test_core_guardrails import CAMPAIGNS, steps_of
from tests.property.test_core_judge import names, plan_of, texts
from tests.property.test_core_judge import steps as judge_steps
from tests.support.plans import DAY, HOUR, FixedScorer, campaign_only, make_plan
from tests.support.streams import START, USER, Stream, track

CAPS = (Cap(2, HOUR), Cap(4, DAY), Cap(1, 3 * HOUR, "promo"))


compiled = cache(compile_expression)


def without_undecided(clause: Clause, dice: random.Random) -> bool:
    """The condition's truth with every test that did not decide replaced by a coin."""
    if clause.how == "test":
        return clause.holds if clause.decided else dice.random() < 0.5
    parts = [without_undecided(part, dice) for part in clause.parts]
    if clause.how == "all":
        return all(parts)
    if clause.how == "any":
        return any(parts)
    return parts[0] is not (clause.how == "not")


@settings(max_examples=40)
@given(st.lists(texts, min_size=1, max_size=3), judge_steps, st.integers())
def test_an_explanation_agrees_with_the_judge_whatever_happens(
    conditions: list[str], happened: list[tuple[int, str, int, int | None]], seed: int
) -> None:
    plan = plan_of(conditions)
    explains = {part.id: explain_expression(part.expression) for part in plan.segments}
    stream = Stream(plan)
    dice = random.Random(seed)
    stream.send(track("A", START))
    for pause, name, age, size in happened:
        stream.now_ms += pause
        stream.fire()
        stream.send(track(name, stream.now_ms - age, **({} if size is None else {"size": size})))
        for part in plan.segments:
            clause = explains[part.id](stream.row, stream.now_ms, USER)
            # The row's membership is the judge's work.
            assert clause.holds is (part.id in stream.row.segments), part.expression
            assert without_undecided(clause, dice) is clause.holds, part.expression
            for _, inner in outline(clause):
                assert inner.holds is compiled(inner.text).evaluate(stream.row, stream.now_ms, USER)


@settings(max_examples=25)
@given(texts, st.lists(names, max_size=5))
def test_a_named_segment_is_explained_by_its_own_condition(text: str, happened: list[str]) -> None:
    inner = compile_expression(text)
    context = ExpressionContext(segments={"inner": inner}, segment_names=frozenset({"inner"}))
    whole = "not in_segment('inner') or orders() > 100"
    plan = plan_of([text])
    stream = Stream(plan)
    for name in happened or ["A"]:
        stream.send(track(name, stream.now_ms))
    clause = explain_expression(whole, context)(stream.row, stream.now_ms, USER)
    named = next(part for _, part in outline(clause) if part.how == "segment")
    assert named.parts[0].holds is named.holds is inner.evaluate(stream.row, stream.now_ms, USER)
    assert clause.holds is compile_expression(whole, context).evaluate(stream.row, stream.now_ms, USER)


def _contributions(features: Mapping[str, float]) -> dict[str, float]:
    return dict.fromkeys(features, 1.0)


@settings(max_examples=40)
@given(steps_of, st.sampled_from([0.0, 0.5]), st.booleans(), st.sampled_from([0.0, 0.5]), st.booleans())
def test_a_campaigns_verdict_is_what_the_arbiter_then_does(
    steps: list[tuple[int, list[str]]], holdout: float, required: bool, campaign_holdout: float, tired: bool
) -> None:
    plan = make_plan(
        campaigns=[replace(part, holdout_share=campaign_holdout) for part in CAMPAIGNS],
        adaptive=AdaptiveCaps(0.2, DAY) if tired else None,
        caps=CAPS,
        quiet_hours=QuietHours(22 * 60, 8 * 60),
        holdout_share=holdout,
        consent_required=required,
    )
    stream = Stream(plan)
    explainer = Explainer(stream.processor.index, campaign_only)
    triggered = {"Promo": "promo", "News": "news", "Paid": "paid"}
    stream.send(track("Notifications Enabled", START))
    for _ in range(3):
        stream.send(track("Notification Dismissed", START))
    for pause, happened in steps:
        stream.now_ms += pause
        stream.fire()
        for name in happened:
            view = explainer.user(USER, stream.row, stream.now_ms, FixedScorer(), _contributions)
            expected = next(part for part in view.campaigns if part.name == triggered[name])
            closed = [gate.name for gate in expected.gates if not gate.open]
            assert expected.verdict == (closed[0] if closed else "send")
            before = len(stream.decisions)
            stream.send(track(name, stream.now_ms))
            made = [one for one in stream.decisions[before:] if one.campaign == triggered[name]]
            if expected.verdict == "quiet_hours":
                assert not made  # deferred
            else:
                assert [one.reason or one.action for one in made] == [expected.verdict]
