"""What a learned choice brought: gathered in the row, sent out once, when its window has passed."""

from __future__ import annotations

from typing import Any

import pytest

from app.core import timers
from app.core.campaign import Reward
from app.core.influence import BURST_EVENTS_MAX
from app.core.merge_rows import merge_rows
from app.core.profile import Profile
from app.core.row_parts import PendingReward, Timer
from schemas.events import (
    NOTIFICATION_CLICKED,
    NOTIFICATION_FAILED,
    NOTIFICATION_OPENED,
    NOTIFICATION_SENT,
    NOTIFICATIONS_DISABLED,
    ORDER_COMPLETED,
)
from schemas.outcomes import NO_EXAMPLE, Outcome
from tests.support.plans import DAY, HOUR, MINUTE, campaign, make_plan, on_event, variant
from tests.support.streams import START, Stream, track

CLICK = Reward("click", DAY)
BOUGHT = Reward("conversion", 3 * DAY, event=ORDER_COMPLETED)
WORTH = Reward("conversion", 3 * DAY, event=ORDER_COMPLETED, value="basket.total", value_max=200.0, opt_out_penalty=4.0)


def stream_of(reward: Reward | None, choose: Any = "thompson", **fields: Any) -> Stream:
    part = campaign("hello", on_event("Go"), variants=(variant("a"), variant("b")), choose=choose, reward=reward)
    return Stream(make_plan(campaigns=[part], label_horizon_ms=HOUR, **fields))


def sent(reward: Reward | None, **fields: Any) -> Stream:
    """A decision that was sent at once."""
    stream = stream_of(reward, **fields)
    stream.send(track("Go", START))
    answer(stream, NOTIFICATION_SENT, 0)
    return stream


def answer(stream: Stream, name: str, after_ms: int, at: int = 0, **properties: Any) -> None:
    properties.setdefault("decisionId", stream.sends[at].id)
    stream.at(after_ms).send(track(name, START + after_ms, **properties))


def rewards(stream: Stream) -> list[Outcome]:
    """What went out by the fifth day."""
    for day in range(1, 6):
        stream.at(day * DAY).fire()
    return [outcome for outcome in stream.outcomes if outcome.gain is not None]


def gains(stream: Stream) -> list[float | None]:
    return [outcome.gain for outcome in rewards(stream)]


def test_a_click_within_the_window_is_worth_one_and_goes_out_when_the_window_ends() -> None:
    stream = sent(CLICK)
    answer(stream, NOTIFICATION_OPENED, MINUTE)
    answer(stream, NOTIFICATION_CLICKED, 2 * HOUR)
    answer(stream, NOTIFICATION_CLICKED, 3 * HOUR)
    stream.at(DAY - 1).fire()
    assert all(outcome.gain is None for outcome in stream.outcomes), "the label came, the reward waits"
    (reward,) = rewards(stream)
    decision = stream.sends[0]
    assert (reward.id, reward.gain, reward.label, reward.matured_ms) == (decision.id, 1.0, NO_EXAMPLE, START + DAY)
    assert (reward.variant, reward.propensity, reward.chooser) == (decision.variant, decision.propensity, "thompson")
    assert (reward.reward, reward.opted_out) == (CLICK.name, 0)
    assert (stream.row.rewards, stream.row.timers) == ([], [])


def test_the_example_says_that_the_choice_learns_from_something_else() -> None:
    stream = sent(CLICK)
    answer(stream, NOTIFICATION_OPENED, MINUTE)
    assert [(outcome.label, outcome.reward, outcome.gain) for outcome in stream.outcomes] == [(1, CLICK.name, None)]
    plain = sent(None)
    answer(plain, NOTIFICATION_OPENED, MINUTE)
    assert ([outcome.reward for outcome in plain.outcomes], plain.row.rewards) == ([""], [])


@pytest.mark.parametrize(("after_ms", "gain"), [(DAY, 1.0), (DAY + 1, 0.0)])
def test_a_click_counts_until_the_window_ends(after_ms: int, gain: float) -> None:
    stream = sent(CLICK)
    answer(stream, NOTIFICATION_CLICKED, after_ms)
    assert gains(stream) == [gain]


def test_the_window_runs_from_the_sending() -> None:
    stream = stream_of(CLICK)
    stream.send(track("Go", START))
    answer(stream, NOTIFICATION_SENT, 5 * HOUR)
    stream.at(DAY).fire()
    answer(stream, NOTIFICATION_CLICKED, DAY + 4 * HOUR)
    stream.at(DAY + 5 * HOUR).fire()
    assert gains(stream) == [1.0]


def test_what_was_never_sent_or_failed_teaches_nothing() -> None:
    unsent = stream_of(BOUGHT)
    unsent.send(track("Go", START), track(ORDER_COMPLETED, START))
    effects = unsent.at(3 * DAY).fire()
    assert (effects.counts["outcomes", "reward_censored"], gains(unsent)) == (1, [])
    failed = sent(CLICK)
    answer(failed, NOTIFICATION_FAILED, MINUTE)
    assert (failed.row.rewards, failed.row.timers, gains(failed)) == ([], [], [])


def test_a_conversion_goes_to_the_newest_decision_whose_window_holds_it() -> None:
    stream = sent(BOUGHT)
    stream.at(HOUR).send(track("Go", START + HOUR))
    answer(stream, NOTIFICATION_SENT, HOUR, at=1)
    answer(stream, ORDER_COMPLETED, DAY)
    answer(stream, ORDER_COMPLETED, DAY + 1)
    first, second = stream.sends
    assert {reward.id: reward.gain for reward in rewards(stream)} == {first.id: 0.0, second.id: 1.0}


def test_an_order_before_the_decision_or_after_its_window_is_none_of_its() -> None:
    stream = sent(BOUGHT)
    stream.at(MINUTE).send(track(ORDER_COMPLETED, START - 1))
    answer(stream, ORDER_COMPLETED, 3 * DAY + 1)
    assert gains(stream) == [0.0]


def test_worth_adds_up_to_the_most_and_an_opt_out_costs_its_penalty() -> None:
    stream = sent(WORTH)
    answer(stream, ORDER_COMPLETED, HOUR, basket={"total": 50})
    answer(stream, ORDER_COMPLETED, 2 * HOUR, basket={"total": 20.0})
    assert gains(stream) == [pytest.approx(0.35)]
    much = sent(WORTH)
    answer(much, ORDER_COMPLETED, HOUR, basket={"total": 5000})
    assert gains(much) == [1.0]
    left = sent(WORTH)
    answer(left, NOTIFICATIONS_DISABLED, MINUTE)
    answer(left, ORDER_COMPLETED, HOUR, basket={"total": "much"})
    assert [(reward.gain, reward.penalty, reward.opted_out) for reward in rewards(left)] == [(-4.0, 4.0, 0)]


def test_a_replayed_or_repeated_event_changes_no_reward() -> None:
    stream = sent(WORTH)
    order = track(ORDER_COMPLETED, START + HOUR, basket={"total": 50}, message_id="m1")
    stream.at(HOUR).send(order, order)
    stream.process(stream.log)
    assert gains(stream) == [0.25]


def test_an_order_is_an_order_all_the_same() -> None:
    stream = sent(BOUGHT)
    answer(stream, ORDER_COMPLETED, HOUR, revenue=10)
    assert (stream.row.orders, stream.row.revenue_milli) == (1, 10_000)


def test_another_reward_in_the_policy_drops_what_waited_for_the_old_one() -> None:
    stream = sent(CLICK)
    answer(stream, NOTIFICATION_CLICKED, MINUTE)
    other = stream_of(BOUGHT, version="2")
    stream.processor.switch(other.processor.index)
    assert gains(stream) == []
    assert stream.row.rewards == []


def test_a_contextual_choice_keeps_what_it_looked_at() -> None:
    stream = stream_of(CLICK, choose="contextual")
    stream.processor._features_of = lambda _row, _part, _now, _plan: {"hour_sin": 0.5, "c=hello": 1.0}
    stream.send(track("Go", START))
    answer(stream, NOTIFICATION_SENT, 0)
    (reward,) = rewards(stream)
    assert reward.features == {"hour_sin": 0.5}


def test_a_script_teaches_nothing() -> None:
    stream = sent(CLICK)
    answer(stream, NOTIFICATION_CLICKED, MINUTE)
    stream.row.events += BURST_EVENTS_MAX + 10 * 86_400
    assert gains(stream) == []


def test_the_oldest_that_waits_gives_way() -> None:
    stream = stream_of(CLICK)
    limit = timers.LIMITS[timers.REWARD]
    effects = stream.send(*[track("Go", START + n) for n in range(limit + 1)])
    waiting = [timer.key for timer in stream.row.timers if timer.kind == timers.REWARD]
    assert [one.id for one in stream.row.rewards] == waiting
    assert len(waiting) == limit
    assert effects.counts["outcomes", "reward_censored"] == 1


def test_a_click_after_the_example_went_out_follows_it() -> None:
    stream = sent(None)
    answer(stream, NOTIFICATION_OPENED, MINUTE)
    answer(stream, NOTIFICATION_CLICKED, 2 * MINUTE)
    stream.at(2 * HOUR).fire()
    first, late = stream.outcomes
    assert (first.label, first.clicked, late.label, late.clicked, late.opted_out) == (1, 0, NO_EXAMPLE, 1, 0)


def test_the_name_of_a_reward_changes_with_every_part_of_it() -> None:
    names = {one.name for one in (CLICK, BOUGHT, WORTH, Reward("click", HOUR), Reward("click", DAY, opt_out_penalty=1))}
    assert len(names) == 5


def waiting_row(numbers: range) -> Profile:
    return Profile(
        rewards=[PendingReward(f"d{n}", 1, "a", n, 2, 0.5) for n in numbers],
        timers=[Timer(n + DAY, timers.REWARD, 1, f"d{n}") for n in numbers],
    )


def test_merged_rows_keep_what_waits_and_leave_nothing_that_nobody_wakes() -> None:
    row = waiting_row(range(2))
    merge_rows(row, waiting_row(range(1, 3)), {}, START)
    assert [one.id for one in row.rewards] == ["d0", "d1", "d2"]
    limit = timers.LIMITS[timers.REWARD]
    row = waiting_row(range(limit))
    merge_rows(row, waiting_row(range(limit, limit + 5)), {}, START)
    assert {one.id for one in row.rewards} == {timer.key for timer in row.timers}
    assert len(row.rewards) == limit
