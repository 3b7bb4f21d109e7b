"""`top` and `bottom`: thresholds from counts that add up, and membership by thresholds that are given."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from app.core.expression_explain import explain_expression
from app.core.percentiles import TOLERANCE, Board, counted, next_thresholds
from app.core.plan import Plan
from app.core.processor import make_index
from app.core.sketch import BUCKET_MAX, Sketch, above, bucket_of, middle_of
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from schemas.events import ORDER_COMPLETED
from schemas.percentiles import Percentiles, Threshold, decode_percentiles, encode_percentiles, percentiles_key
from tests.support.plans import DAY, HOUR
from tests.support.streams import START, Stream, track

SUM = 'sum("Order Completed.revenue", "30d")'
POLICY = """
version: "1"
name: shop
defaults: {{consent: assumed}}
segments:
  - name: best
    when: {when}
    {more}
campaigns:
  - name: thanks
    category: loyalty
    trigger: {{enter: best}}
    template: {{title: Hello, body: World, deep_link: shop://x}}
"""


def plan(when: str = f"top(10, {SUM})", more: str = "") -> Plan:
    return load_policy_text(POLICY.format(when=when, more=more))


def order(user: str, revenue: float, at_ms: int = START) -> dict[str, object]:
    return track(ORDER_COMPLETED, at_ms, user, revenue=revenue)


def take(board: Board, record: Percentiles) -> None:
    board.take(percentiles_key(record), record)


def count(stream: Stream, board: Board) -> dict[int, int]:
    """Count every user as one partition's worker does, and give the thresholds that follow."""
    for measured in stream.processor.plan.measured:
        sketch = Sketch()
        for key, row in stream.rows.items():
            number = measured.value(row, stream.now_ms, key.decode())
            if number is not None:
                sketch.put(number)
        take(board, counted(measured, sketch, 0, stream.now_ms))
        record = board.due(measured, 1, stream.now_ms)
        if record is not None:
            take(board, record)
    return board.buckets()


def adjust(stream: Stream) -> list[str]:
    """Have the rows follow as the background does; whom it moved."""
    astray = [key for key, row in stream.rows.items() if stream.processor.astray(row, key.decode(), stream.now_ms)]
    effects = stream.processor.adjust(astray, stream.rows, now_ms=stream.now_ms, mark=len(stream.log), acked_offset=0)
    stream._settle(effects)
    return sorted(key.decode() for key in astray)


def members(stream: Stream) -> list[str]:
    return sorted(key.decode() for key, row in stream.rows.items() if row.segments)


def shop(numbers: Sequence[float], when: str = f"top(10, {SUM})", more: str = "") -> tuple[Stream, Board]:
    """One order a user: u0 with the first number, u1 with the second, ..."""
    stream, board = Stream(plan(when, more)), Board()
    stream.send(*(order(f"u{at}", number) for at, number in enumerate(numbers)))
    return stream, board


# -- the sketch


def test_buckets_rise_with_the_number_and_are_one_percent_wide() -> None:
    numbers = sorted(
        random.Random(1).choices([10.0**at * sign for at in range(-5, 15) for sign in (-1.7, 0, 1.3)], k=500)
    )
    assert [bucket_of(number) for number in numbers] == sorted(bucket_of(number) for number in numbers)
    for number in numbers:
        assert middle_of(bucket_of(number)) == pytest.approx(number, rel=0.0101)
    assert len({bucket_of(number) for number in range(101)}) == 101
    assert bucket_of(float("inf")) == BUCKET_MAX == -bucket_of(float("-inf"))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_a_cut_leaves_as_many_users_as_fit_whole_buckets_and_no_more_than_the_share(share: float, seed: int) -> None:
    numbers = [random.Random(seed + at).lognormvariate(2, 2) for at in range(997)]
    sketch = Sketch()
    for number in numbers:
        sketch.put(number)
    top, bottom = sketch.cut_above(share), sketch.cut_below(share)
    assert (
        sum(above(number, top) for number in numbers) <= share * 997 < sum(above(number, top - 1) for number in numbers)
    )
    assert sum(bucket_of(number) < bottom for number in numbers) <= share * 997
    assert sum(bucket_of(number) <= bottom for number in numbers) > share * 997
    exact = sorted(numbers)[-int(share * 997) - 1]
    assert middle_of(top) == pytest.approx(exact, rel=0.01)


def test_sketches_of_parts_add_up_to_the_sketch_of_all() -> None:
    numbers = [random.Random(3).gauss(0, 100) for _ in range(300)]
    whole, parts = Sketch(), [Sketch(), Sketch(), Sketch()]
    for at, number in enumerate(numbers):
        whole.put(number)
        parts[at % 3].put(number)
    added = Sketch()
    for part in parts:
        added.add(part.counts.items())
    assert (added.counts, added.users) == (whole.counts, 300)


def test_a_number_that_is_none_is_not_counted() -> None:
    sketch = Sketch()
    sketch.put(float("nan"))
    assert sketch.users == 0


# -- thresholds


def test_thresholds_stay_while_the_share_beyond_them_is_within_a_tenth() -> None:
    (measured,) = plan().measured
    sketch = Sketch((at, 1) for at in range(1000))
    (first,) = next_thresholds(measured, sketch, {}) or []
    assert (first.bucket, first.share) == (899, 0.1)
    serving = {first.name: first}
    within = int(1000 * 0.1 * TOLERANCE) - 1
    assert next_thresholds(measured, Sketch((at + within, 1) for at in range(1000)), serving) is None
    (moved,) = next_thresholds(measured, Sketch((at + 20, 1) for at in range(1000)), serving) or []
    assert (moved.bucket, moved.share) == (919, 0.1)


def test_thresholds_that_cannot_be_better_stay_although_many_users_have_the_same_number() -> None:
    (measured,) = plan().measured
    lumps = Sketch([(0, 950), (7, 50)])
    (first,) = next_thresholds(measured, lumps, {}) or []
    assert (first.bucket, first.share) == (0, 0.05)
    assert next_thresholds(measured, lumps, {first.name: first}) is None


def test_too_few_users_have_no_percentiles() -> None:
    (measured,) = plan().measured
    assert next_thresholds(measured, Sketch((at, 1) for at in range(19)), {}) is None


def test_thresholds_wait_until_every_partition_has_been_counted() -> None:
    (measured,) = plan().measured
    board = Board()
    half = Sketch((at, 1) for at in range(50))
    take(board, counted(measured, half, 0, START))
    assert board.due(measured, 2, START) is None
    take(board, counted(measured, half, 1, START))
    record = board.due(measured, 2, START)
    assert record is not None
    assert record.users == 100
    assert decode_percentiles(encode_percentiles(record)) == record


def test_two_who_read_the_same_records_serve_the_same_thresholds() -> None:
    (measured,) = plan().measured
    records = [counted(measured, Sketch((at * 3, 1) for at in range(40)), p, START) for p in (1, 0)]
    cuts = Percentiles(
        number=measured.text, partition=-1, at_ms=START, users=80, cuts=[Threshold("top 10", 105, 2.9, 0.1)]
    )
    boards = [Board(), Board()]
    for board, order_of in zip(boards, ([*records, cuts], [*records[::-1], cuts]), strict=True):
        for record in order_of:
            take(board, record)
    assert boards[0].buckets() == boards[1].buckets() == {measured.cuts[0].id: 105}


# -- membership


def test_the_largest_tenth_enters_by_the_background_and_nobody_is_notified() -> None:
    stream, board = shop(range(1, 101))
    assert members(stream) == []
    stream.processor.serve(count(stream, board))
    assert adjust(stream) == members(stream) == sorted(f"u{at}" for at in range(90, 100))
    assert {(change.change, change.cause) for change in stream.changes} == {("enter", "percentile")}
    assert stream.decisions == []
    assert adjust(stream) == []


def test_an_event_moves_a_user_at_once_and_starts_campaigns() -> None:
    stream, board = shop(range(1, 101))
    stream.processor.serve(count(stream, board))
    stream.send(order("u0", 500))
    assert members(stream) == ["u0"]
    assert [(made.user, made.campaign) for made in stream.sends] == [("u0", "thanks")]


def test_users_who_do_nothing_leave_when_the_others_rise() -> None:
    stream, board = shop(range(1, 101))
    stream.processor.serve(count(stream, board))
    adjust(stream)
    stream.send(*(order(f"u{at}", 1000) for at in range(10)))
    stream.processor.serve(count(stream, board))
    adjust(stream)
    assert members(stream) == [f"u{at}" for at in range(10)]


def test_a_window_that_passes_takes_the_user_out_by_the_clock() -> None:
    stream, board = shop([1.0] * 95 + [50.0] * 5)
    stream.processor.serve(count(stream, board))
    adjust(stream)
    assert len(members(stream)) == 5
    due = stream.rows[b"u99"].due_ms()
    assert due <= START + 30 * DAY
    stream.at(due - START).fire("u99")
    assert "u99" not in members(stream)
    assert stream.changes[-1].cause == "clock"


def test_a_replay_under_other_thresholds_changes_nothing() -> None:
    stream, board = shop(range(1, 101))
    stream.processor.serve(count(stream, board))
    stream.send(order("u0", 500))
    before = list(stream.outputs)
    stream.processor.serve(dict.fromkeys(board.buckets(), BUCKET_MAX))
    stream.process(stream.log)
    assert stream.outputs == before
    assert members(stream) == ["u0"]


def test_as_long_as_a_threshold_is_not_known_whoever_is_in_stays_and_nobody_enters() -> None:
    stream, board = shop(range(1, 101))
    stream.processor.serve(count(stream, board))
    adjust(stream)
    inside = members(stream)
    stream.processor.serve({})
    stream.send(order("u0", 500), order("u99", 1))
    stream.at(HOUR).fire()
    assert adjust(stream) == []
    assert members(stream) == inside


def test_a_policy_with_another_percentage_keeps_its_members_until_that_threshold_is_known() -> None:
    stream, board = shop(range(1, 101))
    stream.processor.serve(count(stream, board))
    adjust(stream)
    inside = members(stream)
    stream.processor.switch(make_index(plan(f"top(20, {SUM})")))
    stream.send(order("u99", 1))
    assert members(stream) == inside
    stream.processor.serve(count(stream, board))
    assert stream.processor.index.unready == frozenset()


def test_bottom_and_among_count_only_those_who_are_meant() -> None:
    stream, board = shop(range(1, 51), f"bottom(10, {SUM}, among=orders() >= 1)")
    stream.send(*(track("Product Viewed", START, f"idle{at}") for at in range(500)))
    stream.processor.serve(count(stream, board))
    adjust(stream)
    assert members(stream) == ["u0", "u1", "u2", "u3", "u4"]


def test_a_looser_condition_to_leave_by_is_written_with_until() -> None:
    stream, board = shop(range(1, 101), f"top(10, {SUM})", f"until: not top(20, {SUM})")
    (measured,) = stream.processor.plan.measured
    assert [cut.name for cut in measured.cuts] == ["top 10", "top 20"]
    stream.processor.serve(count(stream, board))
    adjust(stream)
    stream.send(*(order(f"u{at}", 96) for at in range(5)))  # u90 to u94 are no longer of the first ten
    stream.processor.serve(count(stream, board))
    adjust(stream)
    assert {f"u{at}" for at in range(90, 100)} <= set(members(stream))


def test_a_segment_that_builds_on_one_with_a_percentile_follows_it() -> None:
    text = POLICY.format(when=f"top(10, {SUM})", more="")
    nested = text.replace("campaigns:", "  - {name: loyal, when: 'in_segment(\"best\") and orders() >= 1'}\ncampaigns:")
    stream, board = Stream(load_policy_text(nested)), Board()
    stream.send(*(order(f"u{at}", at + 1) for at in range(50)))
    assert len(stream.processor.index.unready) == 2
    stream.processor.serve(count(stream, board))
    adjust(stream)
    assert [len(row.segments) for key, row in stream.rows.items() if key.decode() in members(stream)] == [2] * 5


def test_a_row_of_another_policy_version_is_left_to_the_backfill() -> None:
    stream, board = shop(range(1, 101))
    stream.processor.switch(make_index(plan(f"top(20, {SUM})")))
    stream.processor.serve(count(stream, board))
    assert adjust(stream) == []


# -- the language


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("top(0, orders())", "a percentage is above 0 and below 100"),
        ("top(10, 5)", "needs a number that differs between users"),
        ('top(10, since("Order Completed"))', "needs a number that differs between users"),
        ('top(10, trait("income"))', r"needs a number that differs between users; number\(x\) reads a trait as one"),
        ("top(10, orders(), where=true)", r"top\(\) takes among= only"),
        ("top(10)", r"top\(\) takes 2 arguments, not 1"),
        ("top(10, orders()) > 3", "a condition already"),
    ],
)
def test_mistakes_are_named(when: str, message: str) -> None:
    with pytest.raises(PolicyErrors, match=message):
        plan(when)


def test_an_explanation_says_the_number_and_the_threshold() -> None:
    stream, board = shop(range(1, 101))
    stream.processor.serve(count(stream, board))
    context = stream.processor.plan.context
    clause = explain_expression(f"top(10, {SUM})", context)(stream.rows[b"u9"], START, "u9")
    assert [(reading.text, reading.value) for reading in clause.readings] == [
        ("sum('Order Completed.revenue', '30d')", "10"),
        ("top 10 % above", "90"),
    ]
    assert not clause.holds
