"""Decoded rows for the processor: from the cache, from the chunk that is being folded, or from the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.core.erasure import is_mark, mark_key
from app.core.profile import Profile, decode_profile
from app.stream.partition import Partition
from app.stream.table import RowTable
from schemas.erasures import Subjects

Fresh = Mapping[bytes, bytes | None]
"""The newest bytes of the rows that a chunk has changed so far; None where it has deleted one."""


class Loaded(NamedTuple):
    """The partition's decoded rows with those asked for among them.

    `decoded` are the keys that were not among them before; of those `absent` have no row yet.
    """

    rows: dict[bytes, Profile]
    decoded: list[bytes]
    absent: set[bytes]


class RowReader:
    """Reads rows of one table; with `subjects`, the marks of erased users in place of the rows they had."""

    def __init__(self, table: RowTable, subjects: Subjects | None) -> None:
        self._table = table
        self._subjects = subjects

    def load(self, partition: int, state: Partition, keys: list[bytes], fresh: Fresh) -> Loaded:
        """Have the rows of `keys` in the partition's cache."""
        rows = state.cache.rows
        missing = [key for key in keys if key not in rows]
        absent: set[bytes] = set()
        if missing:
            for key, value in zip(missing, self._values(partition, missing, fresh), strict=True):
                if value is None:
                    absent.add(key)
                else:
                    rows[key] = decode_profile(value)
            if absent and self._subjects is not None and state.marks:
                self._load_marks(partition, absent, rows, fresh, self._subjects)
        return Loaded(rows, missing, absent)

    def reload(self, partition: int, key: bytes, fresh: Fresh) -> Profile | None:
        """One row as it was before the slice, decoded anew."""
        places = [key] if self._subjects is None else [key, mark_key(self._subjects, key)]
        for value in self._values(partition, places, fresh):
            if value is not None:
                return decode_profile(value)
        return None

    def _load_marks(
        self, partition: int, absent: set[bytes], rows: dict[bytes, Profile], fresh: Fresh, subjects: Subjects
    ) -> None:
        """Of those who have no row: the marks of those who were erased."""
        keys = [key for key in absent if not is_mark(key)]
        values = self._values(partition, [mark_key(subjects, key) for key in keys], fresh)
        for key, value in zip(keys, values, strict=True):
            if value is not None:
                rows[key] = decode_profile(value)

    def _values(self, partition: int, keys: Sequence[bytes], fresh: Fresh) -> list[bytes | None]:
        values = self._table.get_many(partition, keys)
        for key in fresh.keys() & keys:  # few: most users have one event in a chunk
            values[keys.index(key)] = fresh[key]
        return values
