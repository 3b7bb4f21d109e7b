"""A condition that the compiled core knows says the same as the functions that the policy made of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.expression_judge import known_condition
from app.core.profile import Profile
from tests.property.test_core_judge import names, plan_of, steps
from tests.support.plans import DAY, MINUTE
from tests.support.streams import START, Stream, track

totals = st.builds(
    'count("{}", "10m") {} {}'.format, names, st.sampled_from([">=", "<", "==", "!="]), st.integers(0, 3)
)
sums = st.builds('sum("{}.size", "1h") {} {}'.format, names, st.sampled_from([">", "<="]), st.integers(0, 4))
recencies = st.builds(
    'since("{}") {} "{}"'.format, names, st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from(["5m", "10m"])
)
mirrored = st.builds('"{}" {} since("{}")'.format, st.sampled_from(["5m", "10m"]), st.sampled_from(["<", ">="]), names)
numbers = st.builds(
    "{} {} {}".format,
    st.sampled_from(["orders()", "revenue()", "rfm_frequency()", "rfm_monetary()"]),
    st.sampled_from([">=", ">", "<", "<=", "==", "!="]),
    st.sampled_from([1, 2, 2.5, 3]),
)
rates = st.builds("open_rate() {} {}".format, st.sampled_from([">=", ">", "<"]), st.sampled_from([0.25, 0.5, 0.75]))
scores = st.builds("rfm_recency() {} {}".format, st.sampled_from([">=", "<"]), st.integers(2, 5))
did = st.builds('did("{}", "10m")'.format, names)
texts = st.recursive(
    st.one_of(totals, sums, recencies, mirrored, numbers, rates, scores, did),
    lambda inner: (
        st.builds("({0}) {1} ({2}) {1} ({3})".format, inner, st.sampled_from(["and", "or"]), inner, inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=4,
)


@settings(max_examples=200)
@given(texts, steps)
def test_the_core_and_the_function_agree_on_the_answer_and_on_its_next_change(
    text: str, happened: list[tuple[int, str, int, int | None]]
) -> None:
    plan = plan_of([text])
    segment = plan.segments[0]
    known = known_condition(segment)
    assert known is not None
    stream = Stream(plan)
    stream.now_ms = START
    for pause, name, age, size in happened:
        stream.now_ms += pause
        stream.send(track(name, stream.now_ms - age, **({} if size is None else {"size": size})))
        row = stream.row
        for at_ms in (stream.now_ms, stream.now_ms + 4 * MINUTE, stream.now_ms - MINUTE):
            assert known.ask(row, at_ms) == (segment.evaluate(row, at_ms, ""), segment.next_change(row, at_ms, ""))


@settings(max_examples=200)
@given(
    st.one_of(numbers, rates, scores),
    st.integers(0, 20),
    st.integers(0, 200_000),
    st.integers(0, 400),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_numbers_of_a_row_are_judged_as_by_the_function(
    text: str, orders: int, revenue_milli: int, days: int, sent: int, opened: int
) -> None:
    segment = plan_of([text]).segments[0]
    known = known_condition(segment)
    assert known is not None
    row = Profile(orders=orders, revenue_milli=revenue_milli, order_ms=START - days * DAY, sent=sent, opened=opened)
    for at_ms in (START, START + 45 * DAY):
        assert known.ask(row, at_ms) == (segment.evaluate(row, at_ms, ""), segment.next_change(row, at_ms, ""))


def test_what_depends_on_more_than_windows_and_recencies_is_left_to_the_function() -> None:
    for text in ("sent() >= 2", "orders() in [2]", "since() > '10m'", 'count("A", "10m") >= 1 and trait("t") == "x"'):
        assert known_condition(plan_of([text]).segments[0]) is None
