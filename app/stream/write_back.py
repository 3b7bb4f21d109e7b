"""Rows in memory before RocksDB: what was written and is not spilled yet, and what was written last.

An event costs a read and a write of its row. In RocksDB those are a search through skip lists, indexes and blocks, and
later a flush and some merges; in a dict they are a small part of that. So rows are changed here, and go to RocksDB
later, those first that have waited longest, with their position (`app.stream.store`). What was spilled stays as long as
there is room.

Of tens of thousands of rows none is in the processor's cache when its user comes again. So all that is known of a row
is one entry, which is looked up once, when the row is read: a write finds it among the few that were read last, and has
it in hand until it arrives.

Only writes come in: nearly every read is followed by a write of the same row, and what a scan or a restore reads is
not read again soon. Of what RocksDB is asked only one answer is kept, until the row is written: is there such a row. So
the number of rows in RocksDB is known after each spill, whichever of them that brings there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from mypy_extensions import mypyc_attr

ENTRY_BYTES: Final = 230
"""Of memory that a row takes beside its value: the heads of three objects, a short key, its places here."""

READ_MAX: Final = 8_192
"""Rows that were read and not written since; when they are so many, who writes one looks for it again."""

TRIM: Final = 32
"""What part of its share a memory frees that is too full: a dict's first entry is behind all that were deleted."""

CHANCES_MAX: Final = 4_096
"""So many rows are passed by at a time that could go, but have been written again."""

Value = bytes | None
"""None: there is no such row."""

Rows = dict[bytes, Value]


@mypyc_attr(acyclic=True)
class Entry:
    """What is known of a row.

    `value` is the store's, where it is `held`, and `dirty` until RocksDB has it; `newest` is that of the last write,
    while any is `expected`. `stored` is whether RocksDB has any row of the key, as far as that is `known`.
    """

    __slots__ = ("again", "dirty", "expected", "held", "key", "known", "newest", "stored", "value")

    def __init__(self, key: bytes, *, known: bool, stored: bool) -> None:
        self.key = key
        self.value: Value = None
        self.newest: Value = None
        self.expected = 0
        self.held = False
        self.dirty = False
        self.again = False
        """Written again since it came here, or `_trim` came by."""
        self.known = known
        self.stored = stored


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
        self._entries: dict[bytes, Entry] = {}
        """The first is the next that `_trim` looks at."""
        self._dirty: list[Entry] = []
        """In the order in which they have become so."""
        self._read: dict[bytes, Entry] = {}
        """What was read last, and no write has asked for yet; also of what is not here, for what RocksDB has said."""
        self.bytes = 0
        """Of all rows, with what Python needs for them; of those that are expected only when they are written."""
        self.dirty_bytes = 0
        self.dirtied = 0
        """Rows that have ever become dirty,"""
        self.cleaned = 0
        """and those of them that have been spilled."""
        self.growth = 0
        """How many rows more RocksDB will have when it has what is dirty."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_dirty(self) -> bool:
        """Whether there is a row that has not been spilled."""
        return bool(self._dirty)

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[Value], list[int]]:
        """Newest values in the order of `keys`, and the places of those that are not known here: None for now."""
        entries, read = self._entries, self._read
        if len(read) > READ_MAX:
            read = self._read = {}
        values: list[Value] = []
        missing: list[int] = []
        for key in keys:
            entry = entries.get(key)
            if entry is None:
                missing.append(len(values))
                values.append(None)
            else:
                read[key] = entry
                values.append(entry.newest if entry.expected else entry.value)
        self.budget.misses += len(missing)
        self.budget.hits += len(values) - len(missing)
        return values, missing

    def answered(self, keys: Sequence[bytes], values: Sequence[Value]) -> None:
        """RocksDB was asked for keys that are not here."""
        read = self._read
        for place in range(len(keys)):
            key = keys[place]
            read[key] = Entry(key, known=True, stored=values[place] is not None)

    def expect(self, rows: Rows) -> list[Entry]:
        """Values are on their way to the store: who reads sees them at once. They arrive in order, each by a `put`."""
        entries, read = self._entries, self._read
        found: list[Entry] = []
        for key, value in rows.items():
            entry = read.get(key)
            if entry is None:
                entry = entries.get(key)
                if entry is None:
                    entry = Entry(key, known=False, stored=True)
            else:
                del read[key]
            if not (entry.held or entry.expected):
                entries[key] = entry
            entry.newest = value
            entry.expected += 1
            found.append(entry)
        return found

    def put(self, expected: Sequence[Entry], values: Iterable[Value]) -> list[Entry]:
        """Values that were expected are the store's, and RocksDB has them not yet.

        Returns those that are taken to replace a row of RocksDB, of which nobody knows it.
        """
        dirty = self._dirty
        unknown: list[Entry] = []
        added = added_dirty = growth = 0
        for entry, value in zip(expected, values, strict=True):
            entry.expected -= 1
            if not entry.expected:
                entry.newest = None
            before, entry.value = entry.value, value
            size = _size(value)
            added += size
            added_dirty += size
            if entry.held:
                freed = _size(before)
                added -= freed
                entry.again = True
                if entry.dirty:
                    added_dirty -= freed
                    growth += (value is not None) - (before is not None)
                    continue
            elif not entry.known:
                entry.known = entry.stored = True
                unknown.append(entry)
            entry.held = entry.dirty = True
            dirty.append(entry)
            growth += (value is not None) - entry.stored
            self.dirtied += 1
        self.bytes += added
        self.dirty_bytes += added_dirty
        self.growth += growth
        return unknown

    def not_stored(self, entry: Entry) -> None:
        """RocksDB has no row of a key that was taken to be there. To be told before anything is spilled."""
        entry.stored = False
        self.growth += 1

    def oldest(self, bytes_min: int) -> tuple[list[tuple[bytes, Value]], int]:
        """What became dirty first, so much of it, and how many rows more RocksDB has with that."""
        found: list[tuple[bytes, Value]] = []
        size = growth = 0
        for entry in self._dirty:
            if size >= bytes_min:
                break
            value = entry.value
            size += _size(value)
            growth += (value is not None) - entry.stored
            found.append((entry.key, value))
        return found, growth

    def spilled(self, number: int) -> None:
        """RocksDB has what `oldest` gave. Of keys that were deleted nothing stays: they may name who was erased."""
        dirty = self._dirty
        size = growth = 0
        for entry in dirty[:number]:
            value = entry.value
            size += _size(value)
            growth += (value is not None) - entry.stored
            entry.dirty = False
            entry.stored = value is not None
            if value is None:
                self._let_go(entry)
        del dirty[:number]
        self.dirty_bytes -= size
        self.growth -= growth
        self.cleaned += number
        self._trim()

    def forget(self, keys: Collection[bytes]) -> None:
        """RocksDB gets other values of these rows by another way; nothing is dirty."""
        assert not self._dirty, "what is dirty would overwrite them"
        self.forget_answers()
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None:
                entry.known, entry.stored = False, True
                if entry.held:
                    self._let_go(entry)

    def forget_answers(self) -> None:
        """They name users of whom there may be nothing else here. A write that needs one asks RocksDB again."""
        self._read = {}

    def _let_go(self, entry: Entry) -> None:
        """No longer hold a row, which is not dirty; of one that is expected, what is on its way stays."""
        self.bytes -= _size(entry.value)
        entry.held = False
        entry.value = None
        if not entry.expected:
            del self._entries[entry.key]

    def _trim(self) -> None:
        """Where there is too much, let go of what is not dirty; some more, since the way to the first is long.

        Who was written again since the last time comes last in place of going (CLOCK: Corbato, 1968). To keep the rows
        in the order of their writes would cost each write as much as all the rest of it.
        """
        share = self.budget.share_bytes
        if self.bytes <= share:
            return
        excess = self.bytes - (share - share // TRIM)
        leaving: list[Entry] = []
        passed: list[Entry] = []
        chances = CHANCES_MAX
        for entry in self._entries.values():
            if excess <= 0:
                break
            if entry.dirty or entry.expected:
                passed.append(entry)
            elif entry.again and chances:
                chances -= 1
                passed.append(entry)
            else:
                excess -= _size(entry.value)
                leaving.append(entry)
        for entry in leaving:
            self._let_go(entry)
        for entry in passed:
            entry.again = False
            del self._entries[entry.key]
            self._entries[entry.key] = entry


def _size(value: Value) -> int:
    """Bytes of memory that a row takes."""
    return ENTRY_BYTES if value is None else ENTRY_BYTES + len(value)
