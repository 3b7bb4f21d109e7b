"""Rows in memory before RocksDB: what was written and is not spilled yet, and what was written last.

An event costs a read and a write of its row. In RocksDB those are a search through skip lists, indexes and blocks, and
later a flush and some merges; in a dict they are a small part of that. So rows are changed here, and go to RocksDB
later, those first that have waited longest, with their position (`app.stream.store`). What was spilled stays as long as
there is room; the row that was written longest ago goes first.

Only writes come in: nearly every read is followed by a write of the same row, and what a scan or a restore reads is
not read again soon. Of what RocksDB is asked only one answer is kept, until the row is written: is there such a row. So
the number of rows in RocksDB is known after each spill, whichever of them that brings there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

ENTRY_BYTES: Final = 230
"""Of memory that a row takes beside its value: the heads of two objects, a short key, places in two dicts."""

ANSWERS_MAX: Final = 50_000
"""Of RocksDB's answers that no write has asked for yet; those of reads that nothing follows are forgotten."""

TRIM: Final = 32
"""What part of its share a memory frees that is too full: a dict's first entry is behind all that were deleted."""

_UNKNOWN: Final[Any] = object()

Value = bytes | None
"""None: there is no such row."""

Rows = dict[bytes, Value]
Ahead = dict[bytes, Rows]
"""Writes that are on their way to a store, by key the last that has it; they are not changed."""


def add_write(ahead: Ahead, rows: Rows) -> None:
    """There is another write on its way."""
    for key in rows:
        ahead[key] = rows


def end_write(ahead: Ahead, rows: Rows) -> None:
    """A write has arrived."""
    for key in rows:
        if ahead.get(key) is rows:
            del ahead[key]


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
        """In the order in which they have last become dirty: so those that are not come first."""
        self._dirty: dict[bytes, Value] = {}
        """In the order in which they have become so."""
        self._new: set[bytes] = set()
        """Of the dirty keys those of which RocksDB has no row."""
        self._answers: dict[bytes, bool] = {}
        """Whether RocksDB has a row of a key that is not here."""
        self.bytes = 0
        """Of all rows, with what Python needs for them."""
        self.dirty_bytes = 0
        self.dirtied = 0
        """Rows that have ever become dirty,"""
        self.cleaned = 0
        """and those of them that have been spilled."""
        self.growth = 0
        """How many rows more RocksDB will have when it has what is dirty."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dirty(self) -> Mapping[bytes, Value]:
        """Newest values that have not been spilled."""
        return self._dirty

    def get_many(self, keys: Sequence[bytes], ahead: Ahead) -> tuple[list[Any], list[int]]:
        """Values in the order of `keys`, and the places of those that are not known here, which mean nothing."""
        rows = self._rows
        values: list[Any] = []
        missing: list[int] = []
        late = 0
        for key in keys:
            write = ahead.get(key)
            if write is not None:
                values.append(write[key])
                late += 1
                continue
            value: Any = rows.get(key, _UNKNOWN)
            if value is _UNKNOWN:
                missing.append(len(values))
            values.append(value)
        self.budget.misses += len(missing)
        self.budget.hits += len(values) - len(missing) - late
        return values, missing

    def answered(self, keys: Sequence[bytes], values: Sequence[Any]) -> None:
        """RocksDB was asked for keys that are not here."""
        answers = self._answers
        if len(answers) > ANSWERS_MAX:
            answers = self._answers = {}
        for place in range(len(keys)):
            answers[keys[place]] = values[place] is not None

    def put(self, rows: Iterable[tuple[bytes, Value]]) -> list[bytes]:
        """Values that RocksDB has not yet. Returns keys that are taken to be in RocksDB, of which nobody knows it."""
        held, dirty, answers = self._rows, self._dirty, self._answers
        unknown: list[bytes] = []
        added = added_dirty = growth = 0
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
                    growth += (value is not None) - (before is not None)
                    held[key] = dirty[key] = value
                    continue
                del held[key]  # it comes last now
                is_stored = True  # what was deleted does not stay
            elif key in answers:
                is_stored = answers[key]
                del answers[key]
            else:
                is_stored = True
                unknown.append(key)
            held[key] = dirty[key] = value
            self.dirtied += 1
            if is_stored:
                growth -= value is None
            else:
                self._new.add(key)
                growth += value is not None
        self.bytes += added
        self.dirty_bytes += added_dirty
        self.growth += growth
        return unknown

    def not_stored(self, key: bytes) -> None:
        """RocksDB has no row of a key that was taken to be there. To be told before anything is spilled."""
        self._new.add(key)
        self.growth += 1

    def oldest(self, bytes_min: int) -> tuple[list[tuple[bytes, Value]], int]:
        """What became dirty first, so much of it, and how many rows more RocksDB has with that."""
        found: list[tuple[bytes, Value]] = []
        new = self._new
        size = growth = 0
        for key, value in self._dirty.items():
            if size >= bytes_min:
                break
            size += _size(value)
            growth += (value is not None) - (key not in new)
            found.append((key, value))
        return found, growth

    def spilled(self, rows: Sequence[tuple[bytes, Value]]) -> None:
        """RocksDB has what `oldest` gave. Of keys that were deleted nothing stays: they may name who was erased."""
        held, dirty, new = self._rows, self._dirty, self._new
        for key, value in rows:
            del dirty[key]
            is_new = key in new
            if is_new:
                new.remove(key)
            self.growth -= (value is not None) - (not is_new)
            self.dirty_bytes -= _size(value)
            if value is None:
                del held[key]
                self.bytes -= ENTRY_BYTES
        self.cleaned += len(rows)
        self._trim()

    def forget(self, keys: Collection[bytes]) -> None:
        """RocksDB gets other values of these rows by another way; nothing is dirty."""
        assert not self._dirty, "what is dirty would overwrite them"
        self.forget_answers()
        for key in keys:
            before: Any = self._rows.pop(key, _UNKNOWN)
            if before is not _UNKNOWN:
                self.bytes -= _size(before)

    def forget_answers(self) -> None:
        """They name users of whom there may be nothing else here. A write that needs one asks RocksDB again."""
        self._answers = {}

    def _trim(self) -> None:
        """Where there is too much, let go of what is not dirty; some more, since the way to the first is long."""
        share = self.budget.share_bytes
        if self.bytes <= share:
            return
        keep = share - share // TRIM
        oldest: list[bytes] = []
        for key, value in self._rows.items():
            if self.bytes <= keep or key in self._dirty:
                break
            self.bytes -= _size(value)
            oldest.append(key)
        for key in oldest:
            del self._rows[key]


def _size(value: Value) -> int:
    """Bytes of memory that a row takes."""
    return ENTRY_BYTES if value is None else ENTRY_BYTES + len(value)
