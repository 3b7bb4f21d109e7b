"""Which variant is shown, with exactly which probability, and who is held out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.campaign import Campaign, Novelty, Variant
from app.core.choices import DIMENSIONS, NOTHING_KNOWN, UNTAUGHT, CampaignChoices, Choices, LinearArm
from app.core.choose import SHOWN_MAX, Pick, dice, held_out, pick, propensities, remember_shown
from app.core.profile import Profile
from schemas.events import NOTIFICATION_OPENED, NOTIFICATION_SENT, NOTIFICATIONS_DISABLED, NOTIFICATIONS_ENABLED
from schemas.outcomes import LATE_OPT_OUT
from tests.support.plans import DAY, HOUR, MINUTE, campaign, make_plan, on_event, variant
from tests.support.streams import START, Stream, track

GO = on_event("Go")
THREE = (variant("a", 2.0), variant("b", 1.0), variant("c", 1.0))


def part(**fields: Any) -> Campaign:
    fields.setdefault("variants", THREE)
    return campaign("hello", GO, **fields)


def picked(
    one: Campaign, known: CampaignChoices | None = None, decision: str = "d", profile: Profile | None = None, **kw: Any
) -> Pick | None:
    choices = NOTHING_KNOWN if known is None else Choices(9, {"hello": known})
    options: dict[str, Any] = {"user": "u1", "features": {}, "now_ms": START} | kw
    return pick(profile or Profile(), one, choices, decision_id=decision, **options)


def shares(one: Campaign, known: CampaignChoices | None = None, **kw: Any) -> dict[str, float]:
    """Each variant's logged propensity, from enough decisions to have met all."""
    found: dict[str, float] = {}
    for n in range(400):
        got = picked(one, known, f"d{n}", **kw)
        assert got is not None
        assert found.setdefault(got.variant.name, got.propensity) == got.propensity
    return found


BEST = CampaignChoices(best={"a": 0.2, "b": 0.7, "c": 0.1})


def test_thompson_mixes_the_probability_of_being_best_with_the_weights() -> None:
    found = shares(part(choose="thompson", explore=0.2), BEST)
    assert found == pytest.approx(
        {"a": 0.8 * 0.2 + 0.2 * 0.5, "b": 0.8 * 0.7 + 0.2 * 0.25, "c": 0.8 * 0.1 + 0.2 * 0.25}
    )


def test_the_propensity_is_the_frequency() -> None:
    one = part(choose="thompson", explore=0.2)
    drawn = Counter(got.variant.name for n in range(8000) if (got := picked(one, BEST, f"d{n}")) is not None)
    for name, share in shares(one, BEST).items():
        assert drawn[name] / 8000 == pytest.approx(share, abs=0.02)


def test_a_decision_is_made_alike_however_often() -> None:
    one = part(choose="thompson")
    assert [picked(one, BEST, f"d{n}") for n in range(50)] == [picked(one, BEST, f"d{n}") for n in range(50)]
    got = picked(one, BEST)
    assert got is not None
    assert (got.chooser, got.version) == ("thompson", 9)


def test_an_untaught_campaign_explores_by_its_weights() -> None:
    assert shares(part(choose="thompson")) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})
    equal = shares(part(choose="contextual", explore=0.1))
    assert equal == pytest.approx({"a": 0.9 / 3 + 0.05, "b": 0.9 / 3 + 0.025, "c": 0.9 / 3 + 0.025})


def test_a_contextual_choice_depends_on_the_user_now() -> None:
    def arm(bias: float, hour: float) -> LinearArm:
        theta = [0.0] * DIMENSIONS
        theta[0], theta[5] = bias, hour  # hour_cos
        return LinearArm(tuple(theta), tuple(tuple(entry * 1e-6 for entry in row) for row in UNTAUGHT.inverse))

    known = CampaignChoices(linear={"a": arm(0.2, 0.0), "b": arm(0.1, 0.2), "c": arm(0.0, 0.0)})
    one = part(choose="contextual", explore=0.04)
    assert max(shares(one, known, features={"hour_cos": 1.0}).items(), key=lambda item: item[1]) == ("b", 0.97)
    assert max(shares(one, known, features={"hour_cos": -1.0}).items(), key=lambda item: item[1])[0] == "a"


def test_what_is_not_known_yet_is_tried() -> None:
    sure = LinearArm((0.3,) + (0.0,) * (DIMENSIONS - 1), ((0.0,) * DIMENSIONS,) * DIMENSIONS)
    found = shares(
        part(choose="contextual", variants=(variant("a"), variant("b"))), CampaignChoices(linear={"a": sure})
    )
    assert found["b"] > found["a"]


@pytest.mark.parametrize("choose", ["fixed", "thompson", "contextual"])
def test_a_stopped_variant_is_shown_to_nobody_and_the_others_share(choose: Any) -> None:
    known = CampaignChoices(best={"b": 0.5, "c": 0.5}, stopped=frozenset({"a"}))
    one = part(choose=choose)
    got = [picked(one, known, f"d{n}", user=f"u{n}") for n in range(2000)]
    drawn = Counter((pick.variant.name, round(pick.propensity, 9)) for pick in got if pick is not None)
    assert set(drawn) == {("b", 0.5), ("c", 0.5)}
    assert min(drawn.values()) > 800
    assert picked(one, CampaignChoices(stopped=frozenset("abc"))) is None


def test_a_fixed_variant_is_kept_when_another_is_stopped() -> None:
    stopped = CampaignChoices(stopped=frozenset({"a"}))
    for n in range(200):
        before, after = picked(part(), user=f"u{n}"), picked(part(), stopped, user=f"u{n}")
        assert before is not None
        assert after is not None
        assert before.variant.name == "a" or after.variant is before.variant


def test_a_variant_is_shown_only_to_those_who_are_eligible() -> None:
    vip = Variant("vip", 1.0, variant().render, lambda profile, _now_ms, _user: profile.orders > 5)
    one = part(variants=(vip, variant("b")), choose="thompson")
    known = CampaignChoices(best={"vip": 0.9, "b": 0.1})
    assert shares(one, known) == {"b": 1.0}
    assert shares(one, known, profile=Profile(orders=9))["vip"] == pytest.approx(0.95 * 0.9 + 0.05 * 0.5)


def test_a_variant_just_seen_recovers_by_halves() -> None:
    one = part(choose="thompson", explore=0.0, novelty=Novelty(1.0, DAY), variants=(variant("a"), variant("b")))
    known = CampaignChoices(best={"a": 0.5, "b": 0.5})
    profile = Profile()
    remember_shown(profile, one, one.variants[0], START)
    assert set(shares(one, known, profile=profile)) == {"b"}
    later = shares(one, known, profile=profile, now_ms=START + DAY)
    assert later == pytest.approx({"a": 0.25 / 0.75, "b": 0.5 / 0.75})
    contextual = part(choose="contextual", novelty=Novelty(0.1, DAY), variants=(variant("a"), variant("b")))
    assert shares(contextual, profile=profile)["b"] == pytest.approx(0.975)


def test_a_row_remembers_a_bounded_number_of_variants() -> None:
    profile = Profile()
    for n in range(SHOWN_MAX + 10):
        remember_shown(profile, part(novelty=Novelty(1.0, DAY)), variant(f"v{n}"), START + n)
    assert len(profile.shown) == SHOWN_MAX
    assert min(profile.shown.values()) == START + 10
    untouched = Profile()
    remember_shown(untouched, part(), variant("a"), START)
    assert untouched.shown == {}


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)),
    st.floats(0.01, 1.0),
    st.sampled_from(["thompson", "contextual"]),
    st.sets(st.sampled_from("abc"), max_size=2),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_propensities_are_positive_and_sum_to_one(
    best: dict[str, float], explore: float, choose: Any, stopped: set[str], penalty: float | None
) -> None:
    novelty = None if penalty is None else Novelty(penalty, DAY)
    one = part(choose=choose, explore=explore, novelty=novelty)
    profile = Profile()
    remember_shown(profile, one, THREE[0], START)
    live = [one for one in THREE if one.name not in stopped]
    found = propensities(profile, one, CampaignChoices(best=best), live, features={}, now_ms=START)
    assert min(found) > 0
    assert sum(found) == pytest.approx(1)


def test_dice_are_uniform_and_independent_of_the_salt() -> None:
    rolled = [(dice(f"d{n}", "x"), dice(f"d{n}", "y")) for n in range(4000)]
    assert 0.48 < sum(one for one, _ in rolled) / 4000 < 0.52
    assert 0.23 < sum(one < 0.5 and other < 0.5 for one, other in rolled) / 4000 < 0.27
    assert all(0 <= one < 1 for one, _ in rolled)


# -- in the arbiter


def test_those_held_out_of_a_campaign_get_the_next_best_and_leave_a_record() -> None:
    held = part(holdout_share=0.3, value=5.0, cool_down_ms=HOUR)
    stream = Stream(make_plan(campaigns=[held, campaign("other", GO)], suppressed_share=0.0))
    stream.send(*[track("Go", START, user=f"u{n}") for n in range(1000)])
    out = [one for one in stream.decisions if one.reason == "campaign_holdout"]
    assert {one.propensity for one in out} == {0.3}
    assert 250 < len(out) < 350
    assert {one.user for one in out} == {one.user for one in stream.sends if one.campaign == "other"}
    assert {one.user for one in out} == {f"u{n}" for n in range(1000) if held_out(f"u{n}", held)}
    assert all(one.features == {"c=hello": 1.0} for one in out)
    stream.at(MINUTE).send(track("Go", START + MINUTE, user=out[0].user))
    assert len([one for one in stream.decisions if one.reason == "campaign_holdout"]) == len(out), "it cools down"


def test_being_held_out_is_independent_of_the_variant() -> None:
    one = part(holdout_share=0.5)
    both = Counter(
        (held_out(f"u{n}", one), got.variant.name)
        for n in range(4000)
        if (got := picked(one, user=f"u{n}")) is not None
    )
    assert both[True, "a"] == pytest.approx(1000, abs=120)
    assert both[False, "b"] == pytest.approx(500, abs=100)


def test_a_campaign_whose_variants_all_sleep_loses_to_the_next() -> None:
    stream = Stream(make_plan(campaigns=[part(value=9.0), campaign("other", GO)]))
    stream.processor.choices = Choices(1, {"hello": CampaignChoices(stopped=frozenset("abc"))})
    stream.send(track("Go", START))
    assert [one.campaign for one in stream.sends] == ["other"]
    assert stream.reasons == ["no_variant"]


def test_the_decision_and_its_outcome_say_how_the_variant_was_chosen() -> None:
    stream = Stream(make_plan(campaigns=[part(choose="thompson", opt_out_limit=0.01)], label_horizon_ms=HOUR))
    stream.processor.choices = Choices(4, {"hello": BEST})
    stream.send(track("Go", START))
    (decision,) = stream.sends
    assert (decision.chooser, decision.choice_version) == ("thompson", 4)
    stream.send(track(NOTIFICATION_SENT, START, decisionId=decision.id))
    stream.at(2 * HOUR).fire()
    (outcome,) = stream.outcomes
    assert (outcome.chooser, outcome.opt_out_limit, outcome.propensity) == ("thompson", 0.01, decision.propensity)
    assert outcome.hour == 9


def answered(*names: str, **fields: Any) -> Stream:
    stream = Stream(make_plan(campaigns=[part()], label_horizon_ms=HOUR, **fields))
    stream.send(track("Go", START))
    decision_id = stream.sends[0].id
    stream.send(track(NOTIFICATION_SENT, START, decisionId=decision_id))
    for at, name in enumerate(names, 1):
        properties = {} if name == NOTIFICATIONS_DISABLED else {"decisionId": decision_id}
        stream.at(at * MINUTE).send(track(name, START + at * MINUTE, **properties))
    stream.at(2 * HOUR).fire()
    return stream


def test_an_opt_out_is_put_down_to_the_newest_notification() -> None:
    (outcome,) = answered(NOTIFICATIONS_DISABLED).outcomes
    assert (outcome.label, outcome.opted_out) == (0, 1)
    assert [one.opted_out for one in answered().outcomes] == [0]


def test_only_the_first_refusal_is_put_down_to_a_notification() -> None:
    stream = Stream(make_plan(campaigns=[part()], label_horizon_ms=HOUR))
    stream.send(track("Go", START), track("Go", START, n=2))
    first, second = (decision.id for decision in stream.sends)
    stream.send(*[track(NOTIFICATION_SENT, START, decisionId=one) for one in (first, second)])
    stream.at(1).send(track(NOTIFICATIONS_DISABLED, START + 1))
    stream.at(2).send(track(NOTIFICATIONS_DISABLED, START + 2, decisionId=first))
    stream.at(2 * HOUR).fire()
    assert {one.id: one.opted_out for one in stream.outcomes} == {first: 0, second: 1}


def test_who_refuses_and_consents_in_turns_is_driven_away_once_a_month() -> None:
    stream = Stream(make_plan(campaigns=[part()], label_horizon_ms=HOUR))
    days = [0, 1, 2, 33]
    for day in days:
        stream.at(day * DAY).send(track(NOTIFICATIONS_ENABLED, START + day * DAY), track("Go", START + day * DAY, n=2))
        stream.send(track(NOTIFICATION_SENT, START + day * DAY, decisionId=stream.sends[-1].id))
        stream.send(track(NOTIFICATIONS_DISABLED, START + day * DAY + 1))
        stream.at(day * DAY + 2 * HOUR).fire()
    assert [one.opted_out for one in stream.outcomes] == [1, 0, 0, 1]


def test_an_opt_out_after_the_example_went_out_follows_it() -> None:
    first, late = answered(NOTIFICATION_OPENED, NOTIFICATIONS_DISABLED).outcomes
    assert (first.label, first.opted_out, late.label, late.opted_out) == (1, 0, LATE_OPT_OUT, 1)
    (waited,) = answered(NOTIFICATION_OPENED, NOTIFICATIONS_DISABLED, opens_wait=True).outcomes
    assert (waited.label, waited.opted_out) == (1, 1)


def test_matured_sends_are_counted_by_the_hour_in_which_they_were_sent() -> None:
    opened, ignored = answered(NOTIFICATION_OPENED).row, answered().row
    assert (opened.hour_sends, opened.hour_opens) == ({9: 1}, {9: 1})
    assert (ignored.hour_sends, ignored.hour_opens) == ({9: 1}, {})
