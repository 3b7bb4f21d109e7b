"""Rows in memory before RocksDB: what was written and is not spilled yet, and what was written last.

An event costs a read and a write of its row. In RocksDB those are a search through skip lists, indexes and blocks, and
later a flush and some merges; in a dict they are a small part of that. So rows are changed here, and go to RocksDB all
together, with their position, in one write (`app.stream.store`). What was spilled stays as long as there is room; the
row that was written longest ago goes first.

Only writes come in: nearly every read is followed by a write of the same row, and what a scan or a restore reads is
not read again soon.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

ENTRY_BYTES: Final = 230
"""Of memory that a row takes beside its value: the heads of two objects, a short key, places in two dicts."""

_UNKNOWN: Final[Any] = object()

Value = bytes | None
"""None: there is no such row."""


class Budget:
    """Bytes of memory for rows, shared alike by those who hold any."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._sharers: set[object] = set()
        self.hits = 0
        self.misses = 0

    def join(self, sharer: object) -> None:
        """There is one more to share with."""
        self._sharers.add(sharer)

    def leave(self, sharer: object) -> None:
        """There is one less."""
        self._sharers.discard(sharer)

    def take_reads(self) -> tuple[int, int]:
        """Rows that were read here, and rows that were looked for in vain, since the last time."""
        reads = self.hits, self.misses
        self.hits = self.misses = 0
        return reads

    @property
    def share_bytes(self) -> int:
        """What one may hold."""
        return self._limit_bytes // max(1, len(self._sharers))


class RowMemory:
    """The newest values of one store's rows, as far as they are in memory.

    Parameters
    ----------
    budget
        How many bytes may stay; what is dirty comes on top of it.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._rows: dict[bytes, Any] = {}
        """What was spilled longest ago comes first; what is dirty is wherever it was, or at the end."""
        self._dirty: dict[bytes, Value] = {}
        self.bytes = 0
        """Of all rows, with what Python needs for them."""
        self.dirty_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dirty(self) -> Mapping[bytes, Value]:
        """Newest values that have not been spilled."""
        return self._dirty

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[Any], list[int]]:
        """Values in the order of `keys`, and the places of those that are not known here, which mean nothing."""
        rows = self._rows
        values: list[Any] = []
        missing: list[int] = []
        for key in keys:
            value: Any = rows.get(key, _UNKNOWN)
            if value is _UNKNOWN:
                missing.append(len(values))
            values.append(value)
        self.budget.misses += len(missing)
        self.budget.hits += len(values) - len(missing)
        return values, missing

    def put(self, rows: Iterable[tuple[bytes, Value]]) -> None:
        """Values that RocksDB has not yet."""
        held, dirty = self._rows, self._dirty
        added = added_dirty = 0
        for key, value in rows:
            size = _size(value)
            added += size
            added_dirty += size
            before: Any = held.get(key, _UNKNOWN)
            if before is not _UNKNOWN:
                freed = _size(before)
                added -= freed
                if key in dirty:  # then with the same value
                    added_dirty -= freed
            held[key] = value
            dirty[key] = value
        self.bytes += added
        self.dirty_bytes += added_dirty

    def spilled(self) -> None:
        """RocksDB has all that was dirty. Of keys that were deleted nothing stays: they may name who was erased."""
        rows = self._rows
        for key, value in self._dirty.items():
            del rows[key]  # it comes last now
            if value is None:
                self.bytes -= ENTRY_BYTES
            else:
                rows[key] = value
        self._dirty = {}
        self.dirty_bytes = 0
        self._trim()

    def forget(self, keys: Collection[bytes]) -> None:
        """RocksDB gets other values of these rows by another way; nothing is dirty."""
        assert not self._dirty, "what is dirty would overwrite them"
        for key in keys:
            before: Any = self._rows.pop(key, _UNKNOWN)
            if before is not _UNKNOWN:
                self.bytes -= _size(before)

    def _trim(self) -> None:
        keep = self.budget.share_bytes
        oldest: list[bytes] = []
        for key, value in self._rows.items():
            if self.bytes <= keep:
                break
            self.bytes -= _size(value)
            oldest.append(key)
        for key in oldest:
            del self._rows[key]


def _size(value: Value) -> int:
    """Bytes of memory that a row takes."""
    return ENTRY_BYTES if value is None else ENTRY_BYTES + len(value)
