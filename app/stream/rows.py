"""Decoded rows for the processor: from the cache, from the chunk that is being folded, or from the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from app.core.erasure import is_mark, mark_key
from app.core.profile import Profile, decode_profile
from app.core.row_heads import BadRow
from app.stream.partition import Partition
from app.stream.table import RowTable
from app.stream.unreadable import decode_row, row_anew
from schemas.erasures import Subjects

Fresh = Mapping[bytes, bytes | None]
"""The newest bytes of the rows that a chunk has changed so far; None where it has deleted one."""


class Loaded(NamedTuple):
    """The partition's decoded rows with those asked for among them.

    `decoded` are the keys that were not among them before; of those `absent` have no row yet. `unreadable` is what
    stands in the place of a row and is none, by its key in the store; among the rows is one that takes its place.
    """

    rows: dict[bytes, Profile]
    decoded: list[bytes]
    absent: set[bytes]
    unreadable: dict[bytes, bytes]


def keys_of(records: Sequence[Any], below: bytes) -> list[bytes]:
    """The keys of records, each once; of those that are not below `below` there is no row."""
    keys: dict[bytes, None] = {}
    for record in records:
        key: bytes | None = record.key
        if key and key < below:
            keys[key] = None
    return list(keys)


class RowReader:
    """Reads rows of one table; with `subjects`, the marks of erased users in place of the rows they had."""

    def __init__(self, table: RowTable, subjects: Subjects | None, clock_ms: Callable[[], int]) -> None:
        self._table = table
        self._clock_ms = clock_ms
        self._subjects = subjects

    def load(self, partition: int, state: Partition, keys: list[bytes], fresh: Fresh, *, whole: bool = False) -> Loaded:
        """Have the rows of `keys` in the partition's cache; with `whole`, anew, and each decoded to its last field."""
        if whole:
            for key in keys:
                state.cache.rows.pop(key, None)
        rows = state.cache.rows
        missing = [key for key in keys if key not in rows]
        absent: set[bytes] = set()
        unreadable: dict[bytes, bytes] = {}
        if missing:
            for key, value in zip(missing, self._values(partition, missing, fresh), strict=True):
                if value is None:
                    absent.add(key)
                elif (row := _decoded(value, whole)) is not None:
                    rows[key] = row
                else:
                    unreadable[key] = value
                    rows[key] = row_anew(key, self._clock_ms())
            if absent and self._subjects is not None and state.marks:
                unreadable |= self._load_marks(partition, absent, rows, fresh, self._subjects, whole=whole)
        return Loaded(rows, missing, absent, unreadable)

    def reload(self, partition: int, key: bytes, fresh: Fresh) -> Profile | None:
        """One row as it was before the slice, decoded anew."""
        places = [key] if self._subjects is None else [key, mark_key(self._subjects, key)]
        for place, value in zip(places, self._values(partition, places, fresh), strict=True):
            if value is not None:
                return decode_row(value, whole=True) or row_anew(place, self._clock_ms())
        return None

    def _load_marks(
        self,
        partition: int,
        absent: set[bytes],
        rows: dict[bytes, Profile],
        fresh: Fresh,
        subjects: Subjects,
        *,
        whole: bool,
    ) -> dict[bytes, bytes]:
        """Of those who have no row: the marks of those who were erased. Returns what is unreadable."""
        keys = [key for key in absent if not is_mark(key)]
        places = [mark_key(subjects, key) for key in keys]
        unreadable: dict[bytes, bytes] = {}
        for key, place, value in zip(keys, places, self._values(partition, places, fresh), strict=True):
            if value is not None:
                row = decode_row(value, whole=whole)
                rows[key] = row_anew(place, self._clock_ms()) if row is None else row
                if row is None:
                    unreadable[place] = value
        return unreadable

    def _values(self, partition: int, keys: Sequence[bytes], fresh: Fresh) -> list[bytes | None]:
        values = self._table.get_many(partition, keys)
        for key in fresh.keys() & keys:  # few: most users have one event in a chunk
            values[keys.index(key)] = fresh[key]
        return values


def _decoded(value: bytes, whole: bool) -> Profile | None:
    """As `decode_row`, compiled: what nearly every row is, told in one go."""
    if not whole:
        try:
            return decode_profile(value)
        except BadRow:
            pass  # `decode_row` says whether it is none, or one of a newer version
    return decode_row(value, whole=whole)
