"""Membership changes as a row owes them: packed, and made into the same records again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from librt.strings import BytesWriter

from app.core import owed
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_heads import peek
from schemas.segments import MembershipChange, decode_membership, encode_membership
from schemas.topics import SEGMENTS
from tests.support import old_rows
from tests.support.plans import HOUR, at_least, count_feature, make_plan
from tests.support.streams import START, USER, Stream, track

KEY = USER.encode()
VIEWS = count_feature("Go")
PLAN = make_plan([at_least(VIEWS, 1, "first"), at_least(VIEWS, 2, "second")], [VIEWS])


@given(st.text(min_size=1), st.text(), st.text(), st.integers(0, 2**62), st.integers(0, 2**80))
def test_the_record_is_what_the_contract_encodes(user: str, name: str, reason: str, at_ms: int, origin: int) -> None:
    wording = owed.Wording(name, "enter", "event", reason, "v%1")
    identity = wording.identity(user.encode(), origin)
    change = MembershipChange(
        id=identity.hex(), user=user, segment=name, change="enter", at_ms=at_ms, cause="event", reason=reason,
        policy_version="v%1",
    )  # fmt: skip
    assert wording.value(identity, user, str(at_ms).encode()) == encode_membership(change)


def test_ids_differ_by_user_segment_direction_and_origin() -> None:
    wordings = [owed.Wording(name, change, "event", "", "1") for name in ("a", "b") for change in ("enter", "leave")]  # type: ignore[arg-type]
    ids = {wording.identity(user, origin) for wording in wordings for user in (b"u", b"v") for origin in (1, 2)}
    assert len(ids) == 16


def test_a_row_owes_the_very_records_that_left() -> None:
    stream = Stream(PLAN)
    stream.send(track("Go", START), track("Go", START))
    entries = owed.outputs(decode_profile(encode_profile(stream.row)), KEY)
    assert [entry.output for entry in entries] == stream.outputs
    assert [(entry.mark, decode_membership(entry.output.value or b"").segment) for entry in entries] == [
        (0, "first"),
        (1, "second"),
    ]
    assert stream.row.outbox == []
    assert peek(encode_profile(stream.row)).has_outbox


def test_what_is_acknowledged_is_dropped_when_the_row_is_next_touched_and_no_more() -> None:
    stream = Stream(PLAN)
    stream.send(track("Go", START), track("Go", START))
    stream.send(track("Else", START), acked=1)
    assert [entry.mark for entry in owed.outputs(stream.row, KEY)] == [1]
    stream.send(track("Else", START), acked=2)
    assert stream.row.owed == b""
    assert not peek(encode_profile(stream.row)).has_outbox


def test_the_trace_context_goes_with_it() -> None:
    wording = owed.Wording("s", "leave", "clock", "", "1")
    identity = wording.identity(KEY, 7)
    packed = BytesWriter()
    wording.owe(packed, 3, START, identity, b"00-trace")
    wording.owe(packed, 4, START, identity, None)
    row = Profile(owed=packed.getvalue())
    assert [(entry.mark, entry.output.topic, entry.output.headers) for entry in owed.outputs(row, KEY)] == [
        (3, SEGMENTS, [("traceparent", b"00-trace")]),
        (4, SEGMENTS, ()),
    ]


def test_changes_by_the_clock_and_by_a_policy_are_owed_too() -> None:
    stream = Stream(PLAN)
    stream.send(track("Go", START))
    stream.at(2 * HOUR).fire(acked=1)
    causes = [decode_membership(entry.output.value or b"").cause for entry in owed.outputs(stream.row, KEY)]
    assert causes == ["clock"]


def test_what_a_row_owes_in_changes_is_bounded_and_everything_still_leaves() -> None:
    stream = Stream(PLAN)
    for hour in range(0, 2800, 4):
        stream.at(hour * HOUR).send(track("Go", START + hour * HOUR), acked=0)
        effects = stream.at((hour + 2) * HOUR).fire(acked=0)
    assert len(stream.changes) == 1400
    assert effects.counts[("unowed_outputs",)] == 1
    assert len(encode_profile(stream.row)) < owed.OWED_MOVES_BYTES_MAX + 8192


def test_a_row_that_was_written_before_is_still_read() -> None:
    head, fields = old_rows.version_3(Profile(offset=5))
    assert decode_profile(head + msgspec.msgpack.encode(fields[:-1])) == Profile(offset=5)


@pytest.mark.parametrize("acked", [0, 3, 10])
def test_trimming_stops_at_the_first_that_is_not_acknowledged(acked: int) -> None:
    wording = owed.Wording("s", "enter", "event", "Go", "1")
    marks = [0, 2, 3, 9]
    packed = BytesWriter()
    for mark in marks:
        wording.owe(packed, mark, START, bytes(16), None)
    row = Profile(owed=packed.getvalue())
    owed.trim(row, acked)
    assert [entry.mark for entry in owed.outputs(row, KEY)] == [mark for mark in marks if mark >= acked]
