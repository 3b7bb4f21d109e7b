"""The hour to send in: the user's own where it is known, everybody's where it is not, and a share of any."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import slot_bandit
from app.core.campaign import Novelty, SendTime
from app.core.choices import Choices
from app.core.choose import dice
from app.core.local_time import hour_of_week
from app.core.plan import QuietHours
from app.core.profile import HOURS_PER_WEEK, Profile
from app.core.send_time import FLAT, SPREAD_MS, Slot, choose_slot, curve_of, remember_used, response, slots
from app.core.timers import SEND_TIME
from schemas.events import NOTIFICATIONS_DISABLED
from tests.support.plans import DAY, HOUR, MINUTE, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track

GO = on_event("Go")
NIGHT = QuietHours(22 * 60, 8 * 60)
EVENING = tuple(1.5 if hour % 24 == 19 else 1.0 for hour in range(HOURS_PER_WEEK))


def chosen(profile: Profile | None = None, curve: tuple[float, ...] = FLAT, **options: Any) -> Slot:
    made: dict[str, Any] = {"decision_id": "d", "default_timezone": "UTC", "now_ms": START, "quiet": None} | options
    within, explore = made.pop("within", 12 * HOUR), made.pop("explore", 0.0)
    slot = choose_slot(profile or Profile(), SendTime(within, explore), curve, **made)
    assert slot is not None
    return slot


def test_where_nothing_is_known_it_is_sent_at_once() -> None:
    assert chosen() == Slot(START, 9, 1.0)


def test_a_new_user_gets_the_hour_in_which_people_respond() -> None:
    slot = chosen(curve=EVENING)
    assert (slot.hour, slot.propensity) == (19, 1.0)
    assert START + 10 * HOUR <= slot.due_ms < START + 10 * HOUR + SPREAD_MS


def test_enough_of_the_users_own_answers_outweigh_the_curve() -> None:
    profile = Profile(hour_sends={13: 30, 19: 30}, hour_opens={13: 18, 19: 3})
    assert chosen(profile, EVENING).hour in (12, 13, 14)
    few = Profile(hour_sends={13: 1}, hour_opens={13: 1})
    assert response(few, EVENING, 13) < 2 * response(few, EVENING, 19), "one open is shrunk"


def test_the_hour_is_that_of_the_users_own_clock() -> None:
    slot = chosen(Profile(timezone="America/New_York"), EVENING, within=23 * HOUR)
    assert hour_of_week("America/New_York", "UTC", slot.due_ms) % 24 == 19


def test_an_hour_beyond_the_window_is_not_waited_for() -> None:
    assert chosen(curve=EVENING, within=5 * HOUR).due_ms == START


def test_no_hour_is_in_quiet_hours() -> None:
    late = tuple(2.0 if hour % 24 in (23, 3) else 1.0 for hour in range(HOURS_PER_WEEK))
    assert chosen(curve=late, within=DAY, quiet=NIGHT).due_ms == START
    inside = START + 14 * HOUR
    assert choose_slot(
        Profile(), SendTime(2 * HOUR), FLAT, decision_id="d", default_timezone="UTC", now_ms=inside, quiet=NIGHT
    ) is None  # fmt: skip


def test_slots_begin_with_the_local_hours() -> None:
    found = slots(Profile(timezone="Asia/Kathmandu"), "UTC", START, 3 * HOUR, None)
    assert [(at_ms - START) // MINUTE for at_ms, _ in found] == [0, 15, 75, 135]  # 14:45 there
    assert [hour for _, hour in found] == [14, 15, 16, 17]


def test_the_stated_share_takes_any_hour_and_the_propensity_is_the_frequency() -> None:
    picked = [chosen(curve=EVENING, explore=0.3, decision_id=f"d{n}") for n in range(6000)]
    drawn = Counter(slot.hour for slot in picked)
    propensity = {slot.hour: slot.propensity for slot in picked}
    assert set(drawn) == set(range(9, 22))
    assert sum(propensity.values()) == pytest.approx(1.0)
    assert propensity[19] == pytest.approx(0.7 + 0.3 / 13)
    for hour, share in propensity.items():
        assert drawn[hour] / 6000 == pytest.approx(share, abs=0.015)


def test_the_curve_is_shrunk_to_the_hour_of_the_day_and_to_the_mean() -> None:
    sends, opens = [0] * HOURS_PER_WEEK, [0] * HOURS_PER_WEEK
    assert curve_of(sends, opens) == FLAT
    for hour in range(HOURS_PER_WEEK):
        sends[hour], opens[hour] = 1000, 300 if hour % 24 == 19 else 100
    curve = curve_of(sends, opens)
    assert curve[19] == pytest.approx(2.77, abs=0.15)
    sends[24 + 19], opens[24 + 19] = 1, 0  # hardly ever on Tuesdays: as on the other days
    assert curve_of(sends, opens)[24 + 19] == pytest.approx(curve[19], rel=0.05)


# -- in the arbiter


def stream_of(curve: tuple[float, ...] = EVENING, within: int = 12 * HOUR, **fields: Any) -> Stream:
    part = campaign("hello", GO, send_time=SendTime(within, 0.0), expires_ms=DAY)
    stream = Stream(make_plan(campaigns=[part], **fields))
    stream.processor.choices = Choices(1, {}, curve)
    return stream


def test_a_candidate_waits_for_its_hour_and_is_decided_anew_then() -> None:
    stream = stream_of()
    effects = stream.send(track("Go", START))
    assert stream.decisions == []
    assert effects.counts["decisions", "defer", "send_time"] == 1
    (timer,) = stream.row.timers
    assert timer.kind == SEND_TIME
    stream.at(timer.due_ms - START).fire()
    (decision,) = stream.sends
    assert decision.decided_ms == timer.due_ms
    assert (decision.slot_propensity, decision.source_ms) == (1.0, START)
    assert stream.row.timers[0].kind != SEND_TIME


def test_who_opts_out_while_it_waits_gets_nothing() -> None:
    stream = stream_of()
    stream.send(track("Go", START))
    stream.send(track(NOTIFICATIONS_DISABLED, START + 1))
    stream.at(12 * HOUR).fire()
    assert stream.reasons == ["consent"]


def test_a_newer_candidate_takes_the_hour_of_the_older() -> None:
    stream = stream_of()
    stream.send(track("Go", START))
    (first,) = stream.row.timers
    stream.at(HOUR).send(track("Go", START + HOUR))
    (second,) = stream.row.timers
    assert (second.due_ms, second.set_ms) == (first.due_ms, START + HOUR)
    stream.at(12 * HOUR).fire()
    assert len(stream.sends) == 1


def test_what_is_due_in_quiet_hours_waits_for_their_end_and_chooses_no_other_hour() -> None:
    stream = stream_of()
    stream.send(track("Go", START))
    (timer,) = stream.row.timers
    nights = make_plan(campaigns=stream.plan.campaigns, version="2", quiet_hours=QuietHours(18 * 60, 21 * 60))
    again = Stream(nights, rows=stream.rows)
    again.processor.choices = Choices(1, {}, EVENING)
    again.at(timer.due_ms - START).fire()
    assert again.sends == []
    again.at(12 * HOUR).fire()
    assert [one.decided_ms for one in again.sends] == [START + 12 * HOUR]


def test_dice_of_hours_and_variants_are_apart() -> None:
    assert dice("d", "slot") != dice("d", "variant")


# -- Thompson sampling

THOMPSON = SendTime(DAY, 0.1, "thompson")
MORNING_PERSON = Profile(hour_sends={8: 12, 13: 12, 19: 12}, hour_opens={8: 9, 13: 2, 19: 2})


def drawn(profile: Profile, n: int = 0, rule: SendTime = THOMPSON, curve: tuple[float, ...] = FLAT) -> Slot:
    slot = choose_slot(
        profile, rule, curve, decision_id=f"d{n}", default_timezone="UTC", now_ms=START, quiet=None, campaign="hello"
    )
    assert slot is not None
    return slot


def test_the_propensity_of_a_drawn_hour_is_its_frequency() -> None:
    profile = Profile(hour_sends={9: 3, 19: 3}, hour_opens={9: 1, 19: 1})
    picked = [drawn(profile, n) for n in range(4000)]
    share = {(slot.hour, round(slot.propensity, 9)) for slot in picked}
    assert len(share) == len({slot.hour for slot in picked}), "an hour has one propensity"
    assert sum(propensity for _, propensity in share) == pytest.approx(1.0)
    times = Counter(slot.hour for slot in picked)
    for hour, propensity in share:
        assert times[hour] / 4000 == pytest.approx(propensity, abs=0.025)


def test_what_the_user_opens_decides_more_the_more_is_known() -> None:
    def morning(profile: Profile) -> float:
        slots_of = {drawn(profile, n) for n in range(300)}
        return sum({slot.hour: slot.propensity for slot in slots_of if slot.hour % 24 in range(5, 12)}.values())

    assert morning(Profile()) < 0.5
    assert morning(MORNING_PERSON) > 0.85


def test_a_new_user_is_mostly_sent_in_the_hours_of_all() -> None:
    curve = tuple(1.5 if hour % 24 in (18, 19, 20) else 0.9 for hour in range(HOURS_PER_WEEK))
    hours = [drawn(Profile(), n, curve=curve).hour for n in range(300)]
    assert sum(hour % 24 in (18, 19, 20) for hour in hours) > 200


def test_an_hour_that_was_just_used_is_rested_and_recovers() -> None:
    part = campaign("hello", GO, send_time=SendTime(DAY, 0.0, novelty=Novelty(0.8, DAY)), expires_ms=DAY)
    profile = Profile(hour_sends={9: 20, 14: 20}, hour_opens={9: 16, 14: 8})
    assert part.send_time is not None
    assert drawn(profile, rule=part.send_time).hour in (8, 9, 10)
    remember_used(profile, part, "UTC", START)
    for hour in (8, 10):  # the neighbours share what is known of nine o'clock
        remember_used(profile, part, "UTC", START + (hour - 9) * HOUR)
    assert drawn(profile, rule=part.send_time).hour not in (8, 9, 10)
    profile.shown = {key: at_ms - 60 * DAY for key, at_ms in profile.shown.items()}
    assert drawn(profile, rule=part.send_time).hour in (8, 9, 10)


def test_only_a_campaign_that_asks_for_it_remembers_its_hours() -> None:
    resting = SendTime(DAY, 0.0, novelty=Novelty(0.5, DAY))
    for rule, remembered in ((SendTime(DAY, 0.0), 0), (resting, 1)):
        stream = Stream(make_plan(campaigns=[campaign("hello", GO, send_time=rule, expires_ms=DAY)]))
        stream.send(track("Go", START))
        assert len(stream.row.shown) == remembered


def test_the_posterior_is_that_of_a_linear_regression() -> None:
    sends, opens, rate = {9: 5, 43: 7, 19: 2}, {9: 3, 43: 1}, 0.3
    curve = [1.0 + 0.2 * math.sin(hour) for hour in range(HOURS_PER_WEEK)]
    x = np.array([[curve[hour] * part for part in slot_bandit.BASIS[hour % 24]] for hour in sends])
    trust = np.diag([number * rate / (1 - rate) for number in sends.values()])
    y = np.array([opens.get(hour, 0) / rate / sends[hour] - curve[hour] for hour in sends])
    precision = np.diag([deviation**-2 for deviation in slot_bandit.PRIOR_DEVIATIONS]) + x.T @ trust @ x
    factor, target = slot_bandit._posterior(sends, opens, rate, curve)
    assert np.array(factor) @ np.array(factor).T == pytest.approx(precision)
    mean = slot_bandit._back(factor, slot_bandit._forward(factor, target))
    assert mean == pytest.approx(np.linalg.solve(precision, x.T @ trust @ y))


@given(
    st.dictionaries(st.integers(0, 167), st.tuples(st.integers(1, 500), st.floats(0, 1)), max_size=30),
    st.lists(st.integers(0, 167), min_size=1, max_size=168, unique=True),
)
@settings(max_examples=40)
def test_shares_are_a_distribution_whatever_is_known(known: dict[int, tuple[int, float]], hours: list[int]) -> None:
    sends = {hour: number for hour, (number, _) in known.items()}
    opens = {hour: int(number * share) for hour, (number, share) in known.items()}
    rate = (sum(opens.values()) + 0.75) / (sum(sends.values()) + 5)
    shares = slot_bandit.shares_of_best(sends, opens, rate, FLAT, hours, [0.0] * len(hours))
    assert sum(shares) == 1.0
    assert min(shares) >= 0.0
