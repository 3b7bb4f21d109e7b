"""Which rows the processor is given: the newest of each user, whoever holds it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from app.core.erasure import mark_key
from app.core.profile import Profile, encode_profile
from app.stream.partition import Partition
from app.stream.rows import RowReader, keys_of
from schemas.erasures import Subjects

SUBJECTS = Subjects(b"test secret of the privacy")


class Table:
    """Rows of one partition; notes what it is asked for."""

    def __init__(self, **rows: Profile) -> None:
        self.rows = {name.encode(): encode_profile(row) for name, row in rows.items()}
        self.asked: list[bytes] = []

    def get_many(self, _partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked += keys
        return [self.rows.get(key) for key in keys]


def reading(table: Table, subjects: Subjects | None = None) -> tuple[RowReader, Partition]:
    stands_for: Any = table
    return RowReader(stands_for, subjects, lambda: 5_000), Partition(100)


def test_keys_come_once_in_their_order_and_what_can_be_no_users_is_left_out() -> None:
    records = [SimpleNamespace(key=key) for key in (b"bob", b"ann", None, b"", b"bob", b"\xff\x01")]
    assert keys_of(records, b"\xff") == [b"bob", b"ann"]


def test_a_row_is_decoded_once_and_then_comes_from_the_cache() -> None:
    table = Table(ann=Profile(offset=1, events=7))
    reader, state = reading(table)
    first = reader.load(0, state, [b"ann", b"bob"], {})
    assert (first.rows[b"ann"].events, first.decoded, first.absent) == (7, [b"ann", b"bob"], {b"bob"})
    again = reader.load(0, state, [b"ann"], {})
    assert (again.rows[b"ann"] is first.rows[b"ann"], again.decoded) == (True, [])
    assert table.asked == [b"ann", b"bob"]


def test_what_the_chunk_has_changed_counts_before_the_table_and_so_does_what_it_has_deleted() -> None:
    table = Table(ann=Profile(offset=1, events=7), bob=Profile(offset=1, events=8))
    reader, state = reading(table)
    fresh = {b"ann": encode_profile(Profile(offset=2, events=9)), b"bob": None}
    loaded = reader.load(0, state, [b"ann", b"bob"], fresh)
    assert (loaded.rows[b"ann"].events, loaded.absent) == (9, {b"bob"})
    assert (reader.reload(0, b"ann", {}), reader.reload(0, b"bob", fresh)) != (None, None)
    assert reader.reload(0, b"bob", fresh) is None


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_no_row_is_told_and_one_takes_its_place(whole: bool) -> None:
    table = Table()
    table.rows[b"ann"] = b"no row at all"
    reader, state = reading(table)
    loaded = reader.load(0, state, [b"ann"], {}, whole=whole)
    assert loaded.unreadable == {b"ann": b"no row at all"}
    assert (loaded.rows[b"ann"].events, loaded.absent) == (0, set())


def test_of_an_erased_user_the_mark_is_given_where_there_are_marks() -> None:
    table = Table()
    table.rows[mark_key(SUBJECTS, b"ann")] = encode_profile(Profile(offset=4, erased_ms=900))
    reader, state = reading(table, SUBJECTS)
    assert reader.load(0, state, [b"ann"], {}).absent == {b"ann"}
    assert table.asked == [b"ann"], "a partition without marks is not asked for any"
    state.marks = 1
    assert reader.load(0, state, [b"ann"], {}).rows[b"ann"].erased_ms == 900
    reloaded = reader.reload(0, b"ann", {})
    assert reloaded is not None
    assert reloaded.erased_ms == 900
