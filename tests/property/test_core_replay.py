"""Replays change nothing, and one event more or less of another user changes nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.campaign import Trigger
from app.core.plan import Cap
from app.core.profile import Profile, decode_profile, encode_profile
from schemas.events import NOTIFICATION_OPENED, NOTIFICATION_SENT, ORDER_COMPLETED, PRODUCT_ADDED
from tests.support.plans import DAY, HOUR, MINUTE, at_least, campaign, count_feature, make_plan, on_event
from tests.support.streams import FakeRecord, Stream, record, track

ADDS = count_feature(PRODUCT_ADDED)
PLAN = make_plan(
    [at_least(ADDS, 2, "keen")],
    [ADDS],
    [
        campaign("thanks", on_event(ORDER_COMPLETED)),
        campaign("welcome", Trigger("enter", segment="keen")),
        campaign(
            "cart",
            Trigger("absence", event=PRODUCT_ADDED, wait_ms=15 * MINUTE, cancel=frozenset({ORDER_COMPLETED})),
        ),
    ],
    caps=(Cap(3, DAY),),
)

messages = st.tuples(
    st.sampled_from(["u1", "u2", "u3"]),
    st.sampled_from([PRODUCT_ADDED, ORDER_COMPLETED, NOTIFICATION_SENT, NOTIFICATION_OPENED, "Other"]),
    st.integers(0, 2 * HOUR),
    st.integers(0, 8),
)
batches_of = st.lists(
    st.tuples(st.integers(0, HOUR), st.lists(messages, min_size=1, max_size=6)), min_size=1, max_size=8
)
BAD = b'{"type":"track"'


def play(steps: list[tuple[int, list[tuple[str, str, int, int]]]], stream: Stream) -> None:
    """Each step is a batch; timers fire after each; some records are not JSON."""
    for advance, batch in steps:
        stream.now_ms += advance
        records: list[FakeRecord] = []
        for user, name, age, number in batch:
            offset = len(stream.log) + len(records)
            if number == 0:
                records.append(record(BAD, offset, user.encode()))
                continue
            known = stream.sends[number % len(stream.sends)].id if stream.sends else "none"
            message = track(
                name,
                stream.now_ms - age,
                user=user,
                decisionId=known,
                category=f"c{number % 3}",
                message_id=f"m{number}" if number < 4 else "",
            )
            records.append(record(message, offset))
        stream.log.extend(records)
        stream.process(records)
        stream.fire()


@settings(max_examples=100)
@given(batches_of, st.data())
def test_replaying_any_part_changes_no_row_and_decides_nothing_new(
    steps: list[tuple[int, list[tuple[str, str, int, int]]]], data: st.DataObject
) -> None:
    stream = Stream(PLAN)
    play(steps, stream)
    rows = {key: encode_profile(row) for key, row in stream.rows.items()}
    start = data.draw(st.integers(0, len(stream.log)))
    stream.now_ms += data.draw(st.integers(0, 10 * DAY))  # a replay happens later, under another clock
    effects = stream.process(stream.log[start:])
    assert not effects.changed
    assert {key: encode_profile(row) for key, row in stream.rows.items()} == rows
    assert {output.topic for output in effects.outputs} <= {"dead-letters"}
    assert effects.counts["events", "replayed"] + effects.counts["events", "rejected"] == len(stream.log) - start


@settings(max_examples=60)
@given(batches_of, st.data())
def test_a_crash_between_rows_and_offset_gives_the_rows_of_a_run_without_it(
    steps: list[tuple[int, list[tuple[str, str, int, int]]]], data: st.DataObject
) -> None:
    """Any subset of the rows of the last batch was stored before the crash; the batch is then played again."""
    stream = Stream(PLAN)
    play(steps[:-1], stream)
    before = {key: encode_profile(row) for key, row in stream.rows.items()}
    crashed = Stream(PLAN, now_ms=stream.now_ms)
    crashed.log, crashed.outputs = list(stream.log), list(stream.outputs)
    fired = stream.fire
    stream.fire = lambda *_users, **_fields: stream.effects  # type: ignore[method-assign]
    play(steps[-1:], stream)
    stream.fire = fired  # type: ignore[method-assign]
    after = {key: encode_profile(row) for key, row in stream.rows.items()}
    stored = data.draw(st.sets(st.sampled_from(sorted(after)))) if after else set()
    crashed.rows = {
        key: decode_profile(after[key] if key in stored else before[key])
        for key in after
        if key in stored or key in before
    }
    crashed.now_ms = stream.now_ms
    crashed.process(stream.log[len(crashed.log) :])
    assert {key: encode_profile(row) for key, row in crashed.rows.items()} == after


@settings(max_examples=60)
@given(batches_of)
def test_a_users_row_does_not_depend_on_the_others(
    steps: list[tuple[int, list[tuple[str, str, int, int]]]],
) -> None:
    """The same offsets with the neighbours' records taken out give the same row, byte for byte."""
    together = Stream(PLAN)
    alone = Stream(PLAN)
    for advance, batch in steps:
        for stream in (together, alone):
            stream.now_ms += advance
        records = [
            record(track(name, together.now_ms - age, user=user), len(together.log) + n)
            for n, (user, name, age, _number) in enumerate(batch)
        ]
        together.log.extend(records)
        together.process(records)
        alone.process([one for one in records if one.key == b"u1"])
    assert encode_profile(together.rows.get(b"u1", Profile())) == encode_profile(alone.rows.get(b"u1", Profile()))
