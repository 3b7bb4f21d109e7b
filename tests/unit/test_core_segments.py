"""Membership: on the event, on time by the clock, and on a new policy."""

from __future__ import annotations

from app.core.campaign import Trigger
from app.core.panes import NEVER_MS
from app.core.processor import make_index
from schemas.events import PRODUCT_VIEWED
from tests.support.plans import HOUR, MINUTE, at_least, campaign, count_feature, make_plan, segment
from tests.support.streams import START, USER, Stream, identify, track

VIEWS = count_feature(PRODUCT_VIEWED)
KEEN = at_least(VIEWS, 3, "keen")
EVERYONE = segment("everyone", lambda _profile: True)
OLD = segment("grown-up", lambda profile: profile.traits.get("age", 0) >= 18, "$traits")


def views(number: int, at_ms: int = START) -> list[dict[str, object]]:
    return [track(PRODUCT_VIEWED, at_ms) for _ in range(number)]


def test_the_third_view_enters_and_says_why() -> None:
    stream = Stream(make_plan([KEEN], [VIEWS]))
    assert stream.send(*views(2)).members == {}
    effects = stream.send(*views(1))
    (change,) = stream.changes
    assert (change.segment, change.change, change.cause, change.reason) == ("keen", "enter", "event", PRODUCT_VIEWED)
    assert effects.members == {"keen": 1}
    assert stream.row.segments == {KEEN.id: START}


# now       0m        10m                  60m                    70m
# views     2         1                    [-- the 2 leave --)
def test_a_user_leaves_when_the_window_has_passed_over_the_views() -> None:
    stream = Stream(make_plan([KEEN], [VIEWS]))
    stream.send(*views(2))
    stream.at(10 * MINUTE).send(*views(1, START + 10 * MINUTE))
    due = stream.row.due_ms()
    assert due == START + HOUR
    stream.now_ms = due - 1
    assert not stream.fire().changed
    stream.now_ms = due
    effects = stream.fire()
    assert [change.change for change in stream.changes] == ["enter", "leave"]
    assert stream.changes[-1].cause == "clock"
    assert effects.members == {"keen": -1}
    assert stream.row.segments_due_ms == NEVER_MS


def test_a_later_view_moves_the_exit_and_the_early_look_finds_nothing() -> None:
    stream = Stream(make_plan([KEEN], [VIEWS]))
    stream.send(*views(3))
    stream.at(30 * MINUTE).send(*views(3, START + 30 * MINUTE))
    stream.now_ms = stream.row.due_ms()
    effects = stream.fire()
    assert [change.change for change in stream.changes] == ["enter"]
    assert effects.due == [(START + 30 * MINUTE + HOUR, USER.encode())]


def test_the_index_hears_of_an_earlier_due_time_only() -> None:
    stream = Stream(make_plan([KEEN], [VIEWS]))
    assert stream.send(*views(2)).due == []
    assert stream.send(*views(1)).due == [(START + HOUR, USER.encode())]
    assert stream.at(MINUTE).send(*views(1, START + MINUTE)).due == []


def test_an_identify_evaluates_the_segments_that_read_traits() -> None:
    stream = Stream(make_plan([KEEN, OLD], [VIEWS]))
    stream.send(identify(START, age=44))
    assert [change.segment for change in stream.changes] == ["grown-up"]


def test_a_new_user_is_asked_for_every_segment_at_the_first_event() -> None:
    stream = Stream(make_plan([EVERYONE]))
    stream.send(track("Anything", START), track("Anything", START))
    assert [(change.segment, change.cause) for change in stream.changes] == [("everyone", "event")]


def test_a_new_policy_is_applied_to_a_row_before_its_next_event_and_triggers_nothing() -> None:
    stream = Stream(make_plan([KEEN], [VIEWS]))
    stream.send(*views(3))
    hello = campaign("hello", Trigger("enter", segment="everyone"))
    stream.processor.switch(make_index(make_plan([EVERYONE], campaigns=[hello], version="test-2")))
    stream.send(track("Anything", START))
    assert [(change.segment, change.cause) for change in stream.changes[1:]] == [("everyone", "policy")]
    assert set(stream.row.segments) == {EVERYONE.id}
    assert stream.row.features == {}, "windows that no policy asks for are dropped"
    assert stream.decisions == []


def test_a_postponing_event_does_not_ask_for_the_next_change() -> None:
    calls = []
    base = at_least(VIEWS, 3)

    def asked(*arguments: object) -> int:
        calls.append(arguments)
        return base.next_change(*arguments)  # type: ignore[arg-type]

    keen = type(base)("keen", "", base.evaluate, asked, base.events, postponed_by=frozenset({PRODUCT_VIEWED}))
    stream = Stream(make_plan([keen], [VIEWS]))
    stream.send(*views(1))  # a new row: asked once
    stream.send(*views(1))
    assert len(calls) == 1
    stream.send(*views(1))  # enters: asked
    assert len(calls) == 2
    stream.send(*views(1))
    assert len(calls) == 2
    stream.at(HOUR).fire()
    assert [change.change for change in stream.changes] == ["enter", "leave"]


def test_membership_ids_are_the_same_however_often_they_are_computed() -> None:
    ids = []
    for _ in range(2):
        stream = Stream(make_plan([KEEN], [VIEWS]))
        stream.send(*views(3))
        stream.at(2 * HOUR).fire()
        ids.append([change.id for change in stream.changes])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
