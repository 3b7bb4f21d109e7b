"""Triggers: events, absences, dormancy, entering and leaving; timers that survive being early, late or many."""

from __future__ import annotations

from typing import Any

from app.core import timers
from app.core.campaign import Trigger
from app.core.plan import QuietHours
from app.core.processor import make_index
from schemas.events import NOTIFICATION_SENT, ORDER_COMPLETED, PRODUCT_ADDED, PRODUCT_VIEWED
from tests.support.plans import DAY, HOUR, MINUTE, at_least, campaign, count_feature, make_plan, on_event, segment
from tests.support.streams import START, Stream, track

WAIT = 15 * MINUTE
CART = campaign(
    "cart",
    Trigger(
        "absence",
        event=PRODUCT_ADDED,
        wait_ms=WAIT,
        cancel=frozenset({ORDER_COMPLETED}),
        key_property="cart_id",
    ),
)
DORMANT = campaign("dormant", Trigger("dormancy", wait_ms=2 * DAY))


def cart_stream(**fields: Any) -> Stream:
    return Stream(make_plan(campaigns=[CART], **fields))


def added(cart: object = "c1", at_ms: int = START, **properties: object) -> dict[str, Any]:
    return track(PRODUCT_ADDED, at_ms, cart_id=cart, **properties)


def ordered(cart: object = "c1", at_ms: int = START) -> dict[str, Any]:
    return track(ORDER_COMPLETED, at_ms, cart_id=cart)


def test_an_event_trigger_asks_its_condition() -> None:
    shoes = on_event(PRODUCT_VIEWED, where=lambda properties: properties.get("category") == "shoes")
    stream = Stream(make_plan(campaigns=[campaign("shoes", shoes)]))
    stream.send(track(PRODUCT_VIEWED, START, category="hats"), track(PRODUCT_VIEWED, START, category="shoes"))
    assert [decision.source_offset for decision in stream.sends] == [1]


def test_an_abandoned_cart_is_noticed_when_the_wait_ends_and_once() -> None:
    stream = cart_stream()
    stream.send(added())
    assert stream.row.due_ms() == START + WAIT
    stream.at(WAIT - 1).fire()
    assert stream.sends == []
    stream.at(WAIT).fire()
    stream.at(2 * WAIT).fire()
    (decision,) = stream.sends
    assert (decision.trigger, decision.trigger_key, decision.source_offset) == ("absence", "c1", -1)


def test_an_order_of_the_same_cart_cancels_the_wait() -> None:
    stream = cart_stream()
    stream.send(added(), ordered())
    stream.at(DAY).fire()
    assert stream.decisions == []


def test_an_order_of_another_cart_does_not_cancel() -> None:
    stream = cart_stream()
    stream.send(added("c1"), added("c2"), ordered("c2"))
    stream.at(WAIT).fire()
    assert [decision.trigger_key for decision in stream.sends] == ["c1"]


def test_an_order_without_a_cart_cancels_every_wait() -> None:
    stream = cart_stream()
    stream.send(added("c1"), added("c2"), track(ORDER_COMPLETED, START))
    stream.at(WAIT).fire()
    assert stream.decisions == []


def test_a_back_dated_order_without_a_cart_does_not_cancel_a_later_wait() -> None:
    stream = cart_stream()
    stream.send(added(), track(ORDER_COMPLETED, START - HOUR))
    stream.at(WAIT).fire()
    assert len(stream.sends) == 1


def test_a_repeated_start_restarts_the_wait() -> None:
    stream = cart_stream()
    stream.send(added())
    stream.at(10 * MINUTE).send(added(at_ms=START + 10 * MINUTE))
    stream.at(WAIT).fire()
    assert stream.sends == []
    stream.at(10 * MINUTE + WAIT).fire()
    assert len(stream.sends) == 1


def test_a_late_start_waits_as_long_as_its_order_may_be_late() -> None:
    stream = cart_stream()
    stream.at(HOUR).send(added(at_ms=START))
    stream.at(HOUR).fire()
    assert stream.sends == []
    stream.send(ordered(at_ms=START + MINUTE))
    stream.at(2 * HOUR).fire()
    assert stream.decisions == []


def test_a_late_start_that_arrives_after_its_order_waits_for_nothing() -> None:
    stream = cart_stream()
    stream.send(ordered())
    stream.send(added(at_ms=START - MINUTE))
    stream.at(DAY).fire()
    assert stream.decisions == []


def test_an_event_later_than_the_grace_triggers_nothing() -> None:
    hello = campaign("hello", on_event(PRODUCT_ADDED), expires_ms=100 * DAY)
    welcome = campaign("welcome", Trigger("enter", segment="everyone"))
    stream = Stream(make_plan([segment("everyone", lambda _profile: True)], [], [CART, DORMANT, hello, welcome]))
    stream.send(added(at_ms=START - DAY - 1))
    assert len(stream.changes) == 1
    assert (stream.row.timers, stream.decisions) == ([], [])


def test_a_thousand_carts_keep_a_bounded_number_of_waits() -> None:
    stream = cart_stream()
    effects = stream.send(*[added(f"c{n}") for n in range(1000)])
    limit = timers.LIMITS[timers.ABSENCE]
    assert len(stream.row.timers) == limit
    assert effects.counts[("dropped_timers",)] == 1000 - limit


def test_a_wait_keeps_bounded_plain_properties_for_the_template() -> None:
    stream = cart_stream()
    stream.send(added(price=12.5, nested={"a": {"b": 1}}, huge=10**30, text="x" * 100_000))
    (timer,) = stream.row.timers
    assert timer.data == {"cart_id": "c1", "price": 12.5}


def test_a_numeric_cart_id_is_a_key_like_any_other() -> None:
    stream = cart_stream()
    stream.send(added(7), ordered(7))
    assert stream.row.timers == []


def test_dormancy_counts_from_the_newest_activity() -> None:
    stream = Stream(make_plan(campaigns=[DORMANT]))
    stream.send(track("Seen", START))
    stream.at(DAY).send(track("Seen", START + DAY))
    assert len(stream.row.timers) == 1, "activity does not move the timer; it is moved when it comes up"
    stream.at(2 * DAY).fire()
    assert stream.sends == []
    assert stream.row.due_ms() == START + 3 * DAY
    stream.at(3 * DAY).fire()
    stream.at(9 * DAY).fire()
    assert [decision.campaign for decision in stream.sends] == ["dormant"]


def test_a_sent_notification_does_not_end_dormancy() -> None:
    stream = Stream(make_plan(campaigns=[DORMANT]))
    stream.send(track("Seen", START))
    stream.at(DAY).send(track(NOTIFICATION_SENT, START + DAY, decisionId="x"))
    stream.at(2 * DAY).fire()
    assert len(stream.sends) == 1


def test_dormancy_of_one_event_looks_at_that_event() -> None:
    lapsed = campaign("lapsed", Trigger("dormancy", event=ORDER_COMPLETED, wait_ms=2 * DAY))
    stream = Stream(make_plan(campaigns=[lapsed]))
    stream.send(track("Seen", START))
    assert stream.row.timers == []
    stream.send(ordered())
    stream.at(2 * DAY).send(track("Seen", START + 2 * DAY))
    stream.fire()
    assert len(stream.sends) == 1


def test_entering_and_leaving_trigger_their_campaigns() -> None:
    views = count_feature(PRODUCT_VIEWED)
    stream = Stream(
        make_plan(
            [at_least(views, 2, "keen")],
            [views],
            [
                campaign("welcome", Trigger("enter", segment="keen")),
                campaign("miss", Trigger("leave", segment="keen")),
            ],
        )
    )
    stream.send(track(PRODUCT_VIEWED, START), track(PRODUCT_VIEWED, START))
    stream.at(2 * HOUR).fire()
    assert [decision.campaign for decision in stream.sends] == ["welcome", "miss"]


def test_a_campaign_that_the_policy_no_longer_has_is_dropped_when_due() -> None:
    stream = cart_stream()
    stream.send(added())
    stream.processor.switch(make_index(make_plan(version="test-2")))
    effects = stream.at(WAIT).fire()
    assert effects.counts[("dropped_timers",)] == 1
    assert (stream.row.timers, stream.decisions) == ([], [])


def test_a_deferred_reminder_is_cancelled_by_the_order_of_the_night() -> None:
    night = QuietHours(9 * 60, 10 * 60)  # the stream starts at 09:00 UTC
    stream = cart_stream(quiet_hours=night)
    stream.send(added())
    stream.at(WAIT).fire()
    assert [timer.kind for timer in stream.row.timers] == [timers.DEFERRED]
    stream.at(WAIT + 1).send(ordered())
    stream.at(DAY).fire()
    assert stream.decisions == []


def test_a_deferred_welcome_is_dropped_when_the_user_has_left() -> None:
    views = count_feature(PRODUCT_VIEWED)
    welcome = campaign("welcome", Trigger("enter", segment="keen"))
    stream = Stream(make_plan([at_least(views, 1, "keen")], [views], [welcome], quiet_hours=QuietHours(0, 11 * 60)))
    stream.send(track(PRODUCT_VIEWED, START))
    stream.at(HOUR).fire()
    assert stream.changes[-1].change == "leave"
    stream.at(2 * HOUR).fire()
    assert stream.decisions == []


def test_deferred_dormancy_is_sent_in_the_morning_when_the_user_stays_away() -> None:
    stream = Stream(make_plan(campaigns=[DORMANT], quiet_hours=QuietHours(0, 11 * 60)))
    stream.send(track("Seen", START))
    stream.at(HOUR).send(track("Seen", START + HOUR))
    for at_ms in (2 * DAY, 2 * DAY + HOUR, 2 * DAY + 2 * HOUR):
        assert stream.sends == []
        stream.at(at_ms).fire()
    assert len(stream.sends) == 1


def test_deferred_dormancy_is_dropped_when_the_user_has_come_back() -> None:
    stream = Stream(make_plan(campaigns=[DORMANT], quiet_hours=QuietHours(0, 11 * 60)))
    stream.send(track("Seen", START))
    stream.at(2 * DAY).fire()
    assert [timer.kind for timer in stream.row.timers] == [timers.DEFERRED]
    stream.at(2 * DAY + 1).send(track("Seen", START + 2 * DAY + 1))
    stream.at(2 * DAY + 3 * HOUR).fire()
    assert stream.decisions == []
