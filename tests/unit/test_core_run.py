"""One call of the processor: fates of records, what rows owe, and events that raise."""

from __future__ import annotations

import gc
from typing import Any

import msgspec
import pytest

from app.core import owed
from app.core.batch import OWED_BYTES_MAX
from app.core.plan import Segment
from app.core.processor import Processor, make_index
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.run import RETRY_MS, Run
from schemas.dead_letters import cut, read_dead_letter
from tests.support.plans import (
    DAY,
    HOUR,
    MINUTE,
    FixedScorer,
    at_least,
    campaign,
    campaign_only,
    count_feature,
    make_plan,
    on_event,
)
from tests.support.streams import START, USER, Stream, track

KEY = USER.encode()
VIEWS = count_feature("Go")
HELLO = campaign("hello", on_event("Go"))


def breaking(name: str = "breaks", when: int = 2) -> Segment:
    """A segment whose evaluation raises at the user's event number `when`."""

    def evaluate(profile: Profile, _now_ms: int, user: str) -> bool:
        if profile.events == when:
            raise KeyError(user)
        return profile.events > 2

    return Segment(name, "", evaluate, lambda *_: 2**62, frozenset({"Go"}))


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"", KEY, "empty"),
        (b"{", KEY, "malformed_json"),
        (b'{"type":5}', KEY, "invalid_field"),
        (b'{"type":"page","userId":"u1"}', KEY, "unknown_type"),
        (b'{"type":"track","event":"Go"}', KEY, "missing_user"),
        (b'{"type":"track","userId":"u1"}', KEY, "missing_event"),
        (b'{"type":"track","event":"Go","userId":"u1"}', None, "missing_key"),
        (b'{"type":"track","event":"Go","userId":"u1"}', b"u2", "key_mismatch"),
        (b'"' + b"x" * 1_000_001 + b'"', KEY, "too_large"),
        (b'{"type":"track","event":"Go","userId":"u1","timestamp":99999999999999999999}', KEY, "timestamp_in_future"),
        (b'{"type":"track","event":"Go","userId":"u1","timestamp":-99999999999999999999}', KEY, "timestamp_too_old"),
    ],
)
def test_a_bad_record_is_dead_lettered_as_received_and_its_neighbours_are_not_touched(
    value: bytes, key: bytes | None, reason: str
) -> None:
    stream = Stream(make_plan())
    stream.send(track("Go", START))
    effects = stream.send(value, key=key)
    stream.send(track("Go", START))
    assert stream.dead == [reason]
    (output,) = effects.outputs
    letter = read_dead_letter(output.headers)
    assert (letter.topic, letter.partition, letter.offset, letter.at_ms) == ("events", 0, 1, START)
    assert (output.key, output.value) == (key, cut(value))
    assert effects.counts["events", "rejected"] == effects.counts["dead_letters", reason] == 1
    assert stream.row.events == 2


@pytest.mark.parametrize(
    ("at_ms", "reason"),
    [
        (START + 300_000, None),
        (START + 300_001, "timestamp_in_future"),
        (START - 400 * DAY, None),
        (START - 400 * DAY - 1, "timestamp_too_old"),
    ],
)
def test_times_are_accepted_up_to_the_policys_bounds(at_ms: int, reason: str | None) -> None:
    stream = Stream(make_plan())
    stream.send(track("Go", at_ms))
    assert stream.dead == ([] if reason is None else [reason])


@pytest.mark.parametrize("wrong_ms", [START + 300_001, START - 400 * DAY - 1, 2**60, 0])
def test_an_opt_out_counts_whatever_the_devices_clock_says(wrong_ms: int) -> None:
    stream = Stream(make_plan())
    stream.send(track("Notifications Enabled", START - HOUR))
    stream.send(track("Notifications Disabled", wrong_ms))
    assert (stream.dead, stream.row.consent, stream.row.consent_ms) == ([], 0, START)
    stream.send(track("Notifications Enabled", wrong_ms))
    assert stream.dead == ["timestamp_in_future" if wrong_ms > START else "timestamp_too_old"]
    assert stream.row.consent == 0
    stream.at(HOUR).send(track("Notifications Enabled", START + HOUR))
    assert stream.row.consent == 1, "not for good"


def test_a_replay_changes_nothing_and_emits_nothing() -> None:
    stream = Stream(make_plan(campaigns=[HELLO]))
    stream.send(track("Go", START), track("Go", START))
    before = encode_profile(stream.row)
    stream.at(DAY)
    effects = stream.process(stream.log)
    assert effects.counts == {("events", "replayed"): 2}
    assert (effects.changed, effects.outputs) == ({}, [])
    assert encode_profile(stream.row) == before


def test_a_row_owes_its_outputs_until_they_are_acknowledged() -> None:
    stream = Stream(make_plan(campaigns=[HELLO]))
    stream.send(track("Go", START), track("Go", START))
    assert [entry.output for entry in stream.row.outbox] == stream.outputs
    assert [entry.mark for entry in stream.row.outbox] == [0, 1]
    stream.send(track("Else", START), acked=1)
    assert [entry.mark for entry in stream.row.outbox] == [1]


def test_a_timers_outputs_carry_the_partitions_next_offset() -> None:
    stream = Stream(make_plan([at_least(VIEWS, 1)], [VIEWS]))
    stream.send(track("Go", START), track("Go", START))
    stream.at(HOUR).fire(acked=2)
    assert [entry.mark for entry in owed.outputs(stream.row, KEY)] == [2]


def test_what_a_row_owes_is_bounded_and_everything_still_leaves() -> None:
    stream = Stream(make_plan(campaigns=[HELLO]))
    effects = stream.send(*[track("Go", START)] * 1000)
    assert len(stream.sends) == 1000
    assert effects.counts[("unowed_outputs",)] > 0
    assert len(encode_profile(stream.row)) < OWED_BYTES_MAX + 64 * 1024


@pytest.mark.parametrize("with_reload", [False, True])
def test_the_half_done_work_of_an_event_that_raises_leaves_no_trace(with_reload: bool) -> None:
    """The second "Go" enters `first`, then `breaks` raises; a reference run never gets that event."""
    plan = make_plan([at_least(VIEWS, 2, "first"), breaking()], [VIEWS], [HELLO])
    stream, reference = Stream(plan), Stream(plan)
    for each in (stream, reference):
        each.send(track("Go", START))
    stored = encode_profile(stream.row)
    batch = [track("Other", START), track("Other", START)]
    plain = [{"type": "track", "userId": "u2", "event": "Go", "timestamp": START}]
    poison = {**track("Go", START), "messageId": "poison"}
    records = [msgspec.json.encode(message) for message in (plain[0], poison, *batch)]
    log = [type(stream.log[0])(b"u2" if n == 0 else KEY, value, 1 + n) for n, value in enumerate(records)]
    reload = (lambda key: decode_profile(stored) if key == KEY else None) if with_reload else None
    effects = stream.processor.process(log, "events", 0, stream.rows, now_ms=START, acked_offset=0, reload=reload)
    reference.process([log[0], *log[2:]])
    row = effects.changed[KEY]
    assert row is stream.rows[KEY]
    dead = [entry for entry in row.outbox if entry.output.topic == "dead-letters"]
    assert [entry.mark for entry in dead] == [2]
    row.outbox = [entry for entry in row.outbox if entry not in dead]
    assert encode_profile(row) == encode_profile(reference.row)
    assert effects.members == reference.effects.members
    others = [output for output in effects.outputs if output.topic != "dead-letters"]
    assert others == reference.effects.outputs
    assert effects.counts["events", "applied"] == 3
    assert effects.counts["dead_letters", "processing_failed"] == effects.counts["events", "rejected"] == 1


def test_the_dead_letter_of_an_exception_names_the_place_and_not_the_person() -> None:
    stream = Stream(make_plan([breaking(when=1)]))
    stream.send(track("Go", START))
    letter = read_dead_letter(stream.outputs[0].headers)
    assert letter.detail.startswith("KeyError at test_core_run.py:")
    assert USER not in letter.detail


def test_many_events_that_raise_cost_a_dead_letter_each() -> None:
    always = Segment("always", "", lambda *_: 1 // 0 > 0, lambda *_: 2**62, frozenset({"Go"}))
    stream = Stream(make_plan([always]))
    stream.send(*[track("Go", START)] * 300)
    assert stream.dead == ["processing_failed"] * 300
    assert stream.row.events == 0


def test_a_replayed_dead_letter_is_still_owed_when_a_later_event_moved_the_row_on() -> None:
    stream = Stream(make_plan())
    stream.send(track("Go", START + HOUR), track("Go", START))
    stored = decode_profile(encode_profile(stream.row))
    assert [entry.output.topic for entry in stored.outbox] == ["dead-letters"]
    stream.at(HOUR).process(stream.log)
    assert stream.row.events == 1, "by now the first would be in time, but it has had its fate"


def test_timers_that_raise_are_tried_again_later_and_nothing_is_lost() -> None:
    fails = [True]

    def evaluate(profile: Profile, now_ms: int, _user: str) -> bool:
        if now_ms > START and fails:
            raise ValueError
        return now_ms == START

    segment = Segment("s", "", evaluate, lambda _p, now_ms, _u: START + HOUR, frozenset({"Go"}))
    stream = Stream(make_plan([segment]))
    stream.send(track("Go", START), track("Go", START, user="u2"))
    effects = stream.at(HOUR).fire()
    assert effects.counts["timers", "failed"] == 2
    assert effects.outputs == []
    assert {due for due, _ in effects.due} == {START + HOUR + RETRY_MS}
    fails.clear()
    stream.at(HOUR + RETRY_MS).fire()
    assert [change.change for change in stream.changes] == ["enter", "enter", "leave", "leave"]


def test_a_key_without_a_row_or_not_yet_due_fires_nothing() -> None:
    stream = Stream(make_plan([at_least(VIEWS, 1)], [VIEWS]))
    stream.send(track("Go", START))
    effects = stream.at(MINUTE).fire(USER, "nobody")
    assert not effects.changed
    assert effects.due == [(START + HOUR, KEY)], "an early look gives the index its entry back"


def test_the_scorer_and_the_plan_may_be_exchanged_between_batches() -> None:
    processor = Processor(make_plan(campaigns=[HELLO]), FixedScorer(), campaign_only)
    stream = Stream(make_plan(campaigns=[HELLO]))
    stream.processor = processor
    stream.send(track("Go", START))
    processor.switch(make_index(make_plan(campaigns=[HELLO], version="test-2")))
    processor.scorer = FixedScorer(0.9)
    stream.send(track("Go", START))
    seen: list[tuple[str, Any]] = [(one.policy_version, one.open_probability) for one in stream.sends]
    assert seen == [("test-1", 0.3), ("test-2", 0.9)]


def test_what_a_call_has_read_is_free_when_it_returns() -> None:
    # In a cycle it would wait for a collection of garbage, with all its rows: with timers that is every 50 ms.
    stream = Stream(make_plan(campaigns=[HELLO]))
    gc.collect()
    gc.disable()
    try:
        stream.send(track("Go", START))
        stream.at(DAY).fire()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Run)]
    finally:
        gc.enable()
