"""What a restore learns from a row's first bytes is what the whole row says."""

from __future__ import annotations

import pytest

from app.core.panes import NEVER_MS
from app.core.profile import Profile, encode_profile
from app.core.row_heads import COUNT_AT, HEAD, HEAD_BYTES, BadRow, peek, read_heads
from app.core.row_parts import OutboxEntry, Output


def row(*segments: int, due: int = NEVER_MS, owes: bool = False) -> bytes:
    profile = Profile(segments=dict.fromkeys(segments, 0), segments_due_ms=due)
    if owes:
        profile.outbox = [OutboxEntry(mark=1, output=Output(topic="decisions", key=b"k", value=b"v"))]
    assert profile.due_ms() == due
    return encode_profile(profile)


def test_many_rows_are_read_as_each_of_them() -> None:
    rows = [(b"a", row()), (b"b", row(7, 1 << 31, due=5)), (b"c", row(7, due=9, owes=True))]
    heads = read_heads(rows)
    assert (heads.due, heads.owing, heads.members()) == ([(5, b"b"), (9, b"c")], [b"c"], {7: 2, 1 << 31: 1})
    assert [peek(value).segments for _, value in rows] == [(), (7, 1 << 31), (7,)]
    assert [peek(value).due_ms for _, value in rows] == [NEVER_MS, 5, 9]


@pytest.mark.parametrize("length", [0, 5, 14])
def test_a_row_that_ends_within_its_header_is_no_row(length: int) -> None:
    with pytest.raises(BadRow):
        read_heads([(b"a", row(1)[:length])])


def test_the_numbers_that_the_compiled_core_has_as_constants_are_those_of_the_header() -> None:
    assert (HEAD.size, HEAD.size - 1) == (HEAD_BYTES, COUNT_AT)
