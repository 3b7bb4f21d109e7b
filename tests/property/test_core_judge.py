"""What the engine does not ask: memberships follow the written conditions at every instant, on events and between."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.expressions import compile_expression
from app.core.index import LEVELS_LISTED
from app.core.plan import Plan, Segment
from schemas.events import NOTIFICATION_SENT
from tests.property.test_expressions_oracle import names
from tests.support.plans import HOUR, MINUTE, make_plan
from tests.support.streams import START, Stream, identify, track

pauses = st.sampled_from([0, 20_000, MINUTE, 3 * MINUTE, 9 * MINUTE, 10 * MINUTE, HOUR])
ages = st.sampled_from([0, 0, 0, 30_000, 5 * MINUTE, HOUR])
steps = st.lists(st.tuples(pauses, names, ages, st.sampled_from([None, 0, 1, 2])), min_size=3, max_size=40)

# Parts that flip often within an hour, so that combinations of them meet in every order.
parts = st.one_of(
    st.builds('count("{}", "10m") >= {}'.format, names, st.integers(1, 3)),
    st.builds('count("{}", "1h", where=size >= 1) < {}'.format, names, st.integers(1, 3)),
    st.builds('sum("{}.size", "10m") {} {}'.format, names, st.sampled_from([">", "<="]), st.integers(0, 4)),
    st.builds('since("{}") {} "{}"'.format, names, st.sampled_from(["<", ">"]), st.sampled_from(["5m", "10m", "1h"])),
    st.builds('did("{}", "10m")'.format, names),
    st.sampled_from(["orders() >= 2", "since() > '10m'", "tenure() > '1h'", 'trait("t") == "x"']),
)
texts = st.recursive(
    parts,
    lambda inner: (
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("({0}) {1} ({2}) {1} ({3})".format, inner, st.sampled_from(["and", "or"]), inner, inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=4,
)


def plan_of(texts: list[str]) -> Plan:
    """A policy of these conditions."""
    made = [compile_expression(text) for text in texts]
    segments = [
        Segment(
            f"s{at}",
            one.text,
            one.evaluate,
            one.next_change,
            one.events,
            reads_clock=one.clocked,
            condition=one.condition,
        )
        for at, one in enumerate(made)
    ]
    return make_plan(segments, {feature.text: feature for one in made for feature in one.features}.values())


@settings(max_examples=300)
@example(  # B changes a part, though not the whole: from then on the clock can, when A is ten minutes old
    ['not count("A", "10m") >= 1 and (count("B", "10m") >= 1 and count("B", "1h") >= 1)'],
    [(3 * MINUTE, "B", 0, None), (9 * MINUTE, "Order Completed", 0, None)],
)
@example(  # true of nobody, and of a new row still by what its first event has counted
    ['count("A", "10m") >= 1 or not (count("B", "10m") >= 1)'], [(0, "A", 0, None)]
)
@example(  # a negated combination has parts, too
    ['not ((count("A", "10m") >= 1) or (count("A", "1h", where=size >= 1) < 1))'],
    [(0, "A", 0, None), (0, "A", 0, 1), (10 * MINUTE, "A", 0, None)],
)
@given(st.lists(texts, min_size=1, max_size=5), steps)
def test_memberships_are_the_conditions_truth_on_every_event_and_at_every_instant_between(
    conditions: list[str], happened: list[tuple[int, str, int, int | None]]
) -> None:
    plan = plan_of(conditions)
    stream = Stream(plan)
    stream.now_ms = START
    stream.send(track("A", START))
    for number, (pause, name, age, size) in enumerate(happened):
        for at_ms in (stream.now_ms + pause // 3, stream.now_ms + pause):
            while (next_ms := stream.row.due_ms()) <= at_ms:
                assert next_ms > stream.now_ms or number == 0
                stream.now_ms = max(next_ms, stream.now_ms)
                stream.fire()
            stream.now_ms = at_ms
            check(stream, plan)
        if number % 7 == 6:
            stream.send(identify(stream.now_ms, t="x"))
        else:
            stream.send(track(name, stream.now_ms - age, **({} if size is None else {"size": size})))
        check(stream, plan)
    for part in plan.segments:
        told = [change.change for change in stream.changes if change.segment == part.name]
        assert told == (["enter", "leave"] * len(told))[: len(told)]


@settings(max_examples=100)
@example(  # of a new row the second is known, the others are asked; then the clock has a look at all of them
    ['count("A", "10m") >= 1', 'not did("B", "10m")', 'count("A", "1h") >= 1'], [(0, "A", 0, None)]
)
@example(  # the first is suspect, the second always asked, the third suspect
    ['count("B", "10m") >= 1', 'orders() >= 1 or count("B", "10m") >= 1', 'did("B", "1h")'], [(0, "B", 0, None)]
)
@given(st.lists(texts, min_size=2, max_size=5), steps)
def test_what_an_event_changes_is_told_in_the_order_of_the_policy(
    conditions: list[str], happened: list[tuple[int, str, int, int | None]]
) -> None:
    stream = Stream(plan_of(conditions))
    stream.now_ms = START
    for pause, name, age, size in [(0, "A", 0, None), *happened]:
        stream.now_ms += pause
        told = len(stream.changes)
        stream.send(track(name, stream.now_ms - age, **({} if size is None else {"size": size})))
        segments = [change.segment for change in stream.changes[told:]]
        assert segments == sorted(segments)


@pytest.mark.parametrize("level", [LEVELS_LISTED - 1, LEVELS_LISTED, LEVELS_LISTED + 9])
def test_a_count_that_reaches_a_high_level_is_noticed(level: int) -> None:
    stream = Stream(plan_of([f'count("A", "1h") >= {level}', 'count("A", "1h") >= 2']))
    stream.send(*(track("A", START) for _ in range(level - 1)))
    assert [change.segment for change in stream.changes] == ["s1"]
    stream.send(track("A", START))
    assert [change.segment for change in stream.changes] == ["s1", "s0"]


def test_an_event_that_comes_before_the_timer_finds_what_the_clock_has_changed() -> None:
    plan = plan_of(['count("A", "10m") >= 1 or count("B", "1h") >= 5'])
    stream = Stream(plan)
    stream.send(track("A", START))
    stream.now_ms = stream.row.due_ms()
    stream.send(track("B", stream.now_ms))
    assert [(change.change, change.cause) for change in stream.changes] == [("enter", "event"), ("leave", "event")]


def test_an_event_from_ahead_of_the_clock_leaves_nothing_to_chance() -> None:
    plan = plan_of(['count("A", "10m") >= 1 or count("B", "1h") >= 5'])
    stream = Stream(plan)
    stream.at(20 * MINUTE).send(track("A", START + 20 * MINUTE))
    stream.at(0).send(track("B", START))  # the clock was set back: the event of then is still to come
    check(stream, plan)


def test_a_receipt_that_a_faster_clock_has_counted_counts_when_its_time_comes() -> None:
    plan = plan_of([f'count("{NOTIFICATION_SENT}", "1h") >= 2'])
    stream = Stream(plan)
    stream.at(0).send(track("A", START))
    stream.at(20 * MINUTE).send(track(NOTIFICATION_SENT, START + 20 * MINUTE))
    stream.at(MINUTE).send(track(NOTIFICATION_SENT, START + MINUTE))
    check(stream, plan)
    for minute in (2, 19, 20, 21):
        stream.run_to(START + minute * MINUTE)
        stream.at(minute * MINUTE)
        check(stream, plan)


def check(stream: Stream, plan: Plan) -> None:
    """The row holds the segments whose condition holds."""
    held = {part.name for part in plan.segments if part.id in stream.row.segments}
    assert held == {part.name for part in plan.segments if part.evaluate(stream.row, stream.now_ms, "u1")}
