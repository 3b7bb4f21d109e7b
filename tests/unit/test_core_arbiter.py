"""The arbiter: who wins, what is logged, and what becomes of the others."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from app.core.arbiter import score
from app.core.campaign import Campaign, Variant
from app.core.choose import pick_variant
from app.core.ids import full_id
from app.core.logged import unpack
from app.core.profile import Profile
from app.core.render import MessageTemplate
from app.core.weariness import opt_out_risk
from schemas.topics import DECISIONS
from tests.support.plans import FixedScorer, campaign, make_plan, on_event, variant
from tests.support.streams import START, FakeRecord, Stream, identify, track

GO = on_event("Go")


def compete(*parts: Campaign, scorer: FixedScorer | None = None, **fields: Any) -> Stream:
    stream = Stream(make_plan(campaigns=parts, **fields), scorer=scorer or FixedScorer())
    stream.send(track("Go", START))
    return stream


def test_the_most_valuable_wins_and_the_others_are_outranked() -> None:
    stream = compete(campaign("a", GO, value=1.0), campaign("b", GO, value=3.0), campaign("c", GO, value=2.0))
    assert [(decision.campaign, decision.value) for decision in stream.sends] == [("b", pytest.approx(0.9))]
    assert [decision.campaign for decision in stream.decisions if decision.reason == "outranked"] == ["c", "a"]


def test_the_models_probability_decides_between_equal_values() -> None:
    scorer = FixedScorer(by_campaign={"a": 0.1, "b": 0.2})
    assert compete(campaign("a", GO), campaign("b", GO), scorer=scorer).sends[0].campaign == "b"


def test_a_tie_goes_to_the_name_that_sorts_first() -> None:
    assert compete(campaign("b", GO), campaign("a", GO)).sends[0].campaign == "a"


def test_cost_is_dearer_for_those_who_dismiss() -> None:
    calm, annoyed = Profile(sent=100), Profile(sent=100, dismissed=50)
    part = campaign("a", GO, value=1.0, cost=0.2)
    assert opt_out_risk(calm) < opt_out_risk(annoyed) <= 1.0
    assert score(part, 0.3, opt_out_risk(annoyed)) < score(part, 0.3, opt_out_risk(calm)) < 0.1


def test_a_campaign_outside_its_audience_is_no_candidate() -> None:
    part = campaign("a", GO, audience=lambda profile, _now_ms, _user: profile.orders > 0)
    assert compete(part).decisions == []


def test_transactional_messages_do_not_compete_but_silence_promotions() -> None:
    paid = campaign("paid", GO, "service", transactional=True, value=0.1)
    shipped = campaign("shipped", GO, "service", transactional=True, value=0.1)
    stream = compete(campaign("promo", GO, value=9.0), paid, shipped)
    assert [decision.campaign for decision in stream.sends] == ["paid", "shipped"]
    assert stream.reasons == ["outranked"]


def test_a_decision_logs_what_made_it() -> None:
    stream = Stream(make_plan(campaigns=[campaign("a", GO, expires_ms=5000)]))
    stream.send(track("Seen", START, context={"device": {"type": "ios", "token": "t"}}), track("Go", START - 100))
    (decision,) = stream.sends
    assert decision.features == {"c=a": 1.0}
    assert (decision.open_probability, decision.model_version, decision.policy_version) == (0.3, 7, "test-1")
    assert (decision.decided_ms, decision.expires_ms) == (START, START + 5000)
    assert (decision.source_ms, decision.source_offset) == (START - 100, 1)
    assert decision.token == {"token": "t", "type": "ios"}
    (pending,) = stream.row.pending
    assert (full_id(pending.id), unpack(pending.features), pending.score) == (decision.id, decision.features, 0.3)


def test_the_trace_of_the_event_goes_on() -> None:
    stream = Stream(make_plan(campaigns=[campaign("a", GO)]))
    plain = stream.log.append
    record = FakeRecord(b"u1", b'{"type":"track","event":"Go","userId":"u1"}', 0, 99, (("traceparent", b"00-abc"),))
    plain(record)
    effects = stream.process([record])
    (output,) = [output for output in effects.outputs if output.topic == DECISIONS]
    assert ("traceparent", b"00-abc") in output.headers
    assert effects.latencies_ms == [99]


def test_headers_without_a_value_are_passed_by() -> None:
    stream = Stream(make_plan(campaigns=[campaign("a", GO)]))
    headers = (("other", None), ("traceparent", None))
    effects = stream.process([FakeRecord(b"u1", b'{"type":"track","event":"Go","userId":"u1"}', 0, 99, headers)])
    assert [output.topic for output in effects.outputs] == [DECISIONS]


def test_the_template_sees_traits_properties_and_totals() -> None:
    seen: list[Any] = []

    def render(context: Any) -> Any:
        seen.append(context)
        return SimpleNamespace(title="t", body="b", deep_link="app://x")

    stream = Stream(make_plan(campaigns=[campaign("a", GO, variants=(Variant("a", 1.0, render),))]))
    stream.send(identify(START, name="Ada"), track("Order Completed", START, revenue=2.5), track("Go", START, n=1))
    (context,) = seen
    assert context["user"]["name"] == "Ada"
    assert context["event"] == {"n": 1}
    assert (context["profile"]["orders"], context["profile"]["revenue"]) == (1, 2.5)
    assert stream.sends[0].content is not None
    assert stream.sends[0].content.deep_link == "app://x"


@pytest.mark.parametrize(
    ("title", "told"), [("{{ profile.orders }} so far", "1 so far"), ("{% assign o = profile %}{{ o.orders }}!", "1!")]
)
def test_a_wording_that_speaks_of_the_profile_is_told_of_it(title: str, told: str) -> None:
    template = MessageTemplate(title, "{{ event.n }} done")
    wording = Variant("a", 1.0, template.render, about=template.roots)
    stream = Stream(make_plan(campaigns=[campaign("a", GO, variants=(wording,))]))
    stream.send(track("Order Completed", START, revenue=2.5), track("Go", START, n=1))
    content = stream.sends[0].content
    assert content is not None
    assert (content.title, content.body) == (told, "1 done")


def test_a_wording_that_does_not_is_not() -> None:
    seen: list[dict[str, Any]] = []

    def render(context: Any) -> Any:
        seen.append(context)
        return SimpleNamespace(title="t", body="b", deep_link="")

    wording = Variant("a", 1.0, render, about=frozenset({"event"}))
    Stream(make_plan(campaigns=[campaign("a", GO, variants=(wording,))])).send(track("Go", START, n=1))
    assert "profile" not in seen[0]
    assert seen[0]["event"] == {"n": 1}


def test_variants_are_stable_and_as_frequent_as_their_weights() -> None:
    part = campaign("a", GO, variants=(variant("x", 3.0), variant("y", 1.0)))
    picked = [pick_variant(f"user{n}", part) for n in range(4000)]
    assert picked == [pick_variant(f"user{n}", part) for n in range(4000)]
    assert {(one.name, propensity) for one, propensity in picked} == {("x", 0.75), ("y", 0.25)}
    assert 900 < sum(one.name == "y" for one, _ in picked) < 1100


@pytest.mark.parametrize("wrong", [math.nan, -0.1, 1.5, math.inf])
def test_a_model_that_gives_no_probability_counts_as_zero_and_is_noticed(wrong: float) -> None:
    stream = compete(campaign("a", GO), scorer=FixedScorer(wrong))
    assert stream.sends[0].open_probability == 0.0
    assert stream.effects.counts[("invalid_scores",)] == 1


def test_suppressed_decisions_are_all_counted_and_emitted_by_share() -> None:
    stream = Stream(make_plan(campaigns=[campaign("a", GO)], consent_required=True, suppressed_share=0.25))
    effects = stream.send(*[track("Go", START, user=f"user{n}") for n in range(1000)])
    assert effects.counts["decisions", "suppress", "consent"] == 1000
    assert 180 < len(stream.decisions) < 320
