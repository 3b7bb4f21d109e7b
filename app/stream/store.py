"""The row store: one RocksDB a table partition, raw bytes, rows and their changelog position in one write.

The write-ahead log is off: the changelog is the log. A killed process finds an older state and reads the rest from the
changelog. So rows need not go to RocksDB one by one either: they are changed in memory (`app.stream.write_back`) and
spilled later, those first that have waited longest. With them, in the same batch, goes the position before which every
record of the changelog is in the store. Some of its rows may be newer than that: then their records follow behind the
position, and a restore that reads on from there writes them again (a fuzzy checkpoint). The number of rows is that of
those that are there, and the store knows how far they reach: a changelog that ends before that is another one.

Integrity: the number of rows is kept in the store and compared with a full scan at open, which also reads every block
and so meets every checksum. Doubt means wipe and rebuild. (A damaged MANIFEST opens silently empty; a damaged table
file raises on read.) Only while a store is filled from nothing the number is not kept: a read before every write would
take as long as all the rest. The scan at its end finds it.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict, ReadOptions, WriteBatch, WriteOptions

from app.stream.write_back import Entry, RowMemory

# Keys are UTF-8; no UTF-8 text starts with this byte, so no row can have the key of the metadata.
_META_KEY = b"\xff\xfemeta"
_META = struct.Struct(">qqq")
"""Position, rows, epoch. Of older stores the last is not there."""
_REACH_KEY = b"\xff\xfereach"
_REACH = struct.Struct(">q")
"""Apart, as a build that knows of none reads the others, finds this among the rows, and builds the store anew."""
_OUR_KEYS: Final = (_META_KEY, _REACH_KEY)

PERIODIC_COMPACTION_S: Final = 86_400
"""A file is rewritten at the latest when it is so old: what was deleted before then leaves the disk."""

_SCAN_ROWS: Final = 1_024
_READAHEAD_BYTES: Final = 256 << 10
"""Of each file that is read at once: after a bulk fill all of them."""
_UNCOUNTED: Final = -1
FLUSH_RECORDS: Final = 100_000
"""Changelog records of one partition that a kill costs at most, roughly: a second of restore. The few rows of very busy
users fill no write buffer, however often they change.
"""

STEPS_MAX: Final = 16
"""In so many parts what is dirty is spilled: a step holds the process up, 1 MB for 1 to 2 ms."""

Rows = Iterable[tuple[bytes, bytes | None]]


class StoreDamaged(RuntimeError):
    """The store at `path` cannot be trusted. It holds nothing that the changelog does not: wipe and rebuild."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def _once() -> ReadOptions:
    """How to read what is not read again soon: ahead, and without driving anything out of the cache."""
    options = ReadOptions()
    options.fill_cache(False)
    options.set_readahead_size(_READAHEAD_BYTES)
    return options


class PartitionStore:
    """Rows of one partition by key, and the changelog offset up to which they are complete.

    `write` changes them in memory (`expect` and `arrive`, where there is time in between), and brings what has waited
    longest to RocksDB when there is too much of it; `spill` brings all of it there, `spilling` too, but in steps, and
    `flush` to disk. Whatever looks at more than single keys spills first.
    """

    def __init__(
        self, db: Rdict, path: Path, connect: Callable[..., Rdict], memory: RowMemory, *, dirty_bytes: int
    ) -> None:
        self._connect = connect
        self.memory = memory
        self._dirty_bytes = dirty_bytes
        self._bulk = False
        self.path = path
        self._use(db)
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True
        meta = self._get(_META_KEY)
        self._next_offset: int = 0
        self._count: int = 0
        self._epoch: int = 0
        self._reach: int = 0
        if meta:
            self._next_offset, self._count, self._epoch = _META.unpack(meta.ljust(_META.size, b"\0"))
        if reach := self._get(_REACH_KEY):
            (self._reach,) = _REACH.unpack(reach)
        self._spilled = self._meta()
        self._marks: deque[tuple[int, int, int]] = deque()
        """Of each write since then by which a row became dirty: how many ever had, and the newest position and epoch
        before the next of them.
        """
        self._flushed_offset = self._next_offset
        memory.budget.join(self)

    def _meta(self) -> tuple[int, int, int]:
        return self._next_offset, self._count, self._epoch

    def _use(self, db: Rdict) -> None:
        self._db = db
        if not self._bulk:
            db.set_options({"periodic_compaction_seconds": str(PERIODIC_COMPACTION_S)})  # no setter in Options

    @property
    def next_offset(self) -> int:
        """The first changelog offset that is not in the store."""
        return self._next_offset

    @property
    def reach(self) -> int:
        """An offset of the changelog behind all that rows of the store are from; 0 where nothing was ever written."""
        return max(self._reach, self._next_offset)

    @property
    def epoch(self) -> int:
        """The newest epoch of the changelog's records up to there (`app.stream.fence`)."""
        return self._epoch

    def __len__(self) -> int:
        """0 while it is not known: from `begin_bulk` to the next scan."""
        return max(0, self._count)

    def disk_bytes(self) -> int:
        """Size of the table files; what is still in the write buffer is not in it."""
        return int(self._db.property_int_value("rocksdb.total-sst-files-size") or 0)

    def merging(self) -> bool:
        """Whether files are being written or merged in the background, or wait for it."""
        parts = ("num-running-flushes", "num-running-compactions", "compaction-pending", "mem-table-flush-pending")
        return any(self._db.property_int_value(f"rocksdb.{part}") for part in parts)

    def memory_bytes(self) -> int:
        """Memory of write buffers and open table files; the block cache, which all stores share, is not in it."""
        parts = ("rocksdb.cur-size-all-mem-tables", "rocksdb.estimate-table-readers-mem")
        return sum(int(self._db.property_int_value(part) or 0) for part in parts)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of `keys`, with what is expected; None where there is no row. Raises `StoreDamaged`."""
        values, missing = self.memory.get_many(keys)
        if not missing:
            return values
        if self._bulk:
            self.flush()  # what is not in a file would be sorted anew for each key
        asked = [keys[place] for place in missing]
        found = self._ask(asked)
        for place, value in zip(missing, found, strict=True):
            values[place] = value
        self.memory.answered(asked, found)
        return values

    def _ask(self, keys: list[bytes]) -> list[bytes | None]:
        """What RocksDB has of keys that are not in memory."""
        try:
            found: list[bytes | None] = self._db.get(keys)
        except Exception as exc:
            raise StoreDamaged(f"{self.path}: {exc}", self.path) from exc
        return found

    def keys_with_prefix(self, prefix: bytes) -> list[bytes]:
        """Keys that begin with `prefix`, in order. Raises `OSError`."""
        self.spill()
        found = self._db.keys(from_key=prefix)
        return [bytes(key) for key in itertools.takewhile(lambda key: key.startswith(prefix), found)]

    def expect(self, rows: dict[bytes, bytes | None]) -> list[Entry]:
        """Rows that are on their way (None deletes): `get_many` has them at once, all else when they `arrive`."""
        return self.memory.expect(rows)

    def arrive(
        self,
        expected: Sequence[Entry],
        values: Collection[bytes | None],
        *,
        added: int,
        next_offset: int,
        epoch: int | None = None,
    ) -> None:
        """Put expected rows, the count and the changelog position, atomically; who was expected first arrives first.

        Parameters
        ----------
        added
            How many keys are new, less how many existing ones are deleted.
        epoch
            Of the changelog's records up to `next_offset`; as before when None.

        Raises
        ------
        OSError
            When the disk refuses what is spilled, with the store's path.
        """
        memory = self.memory
        unknown = memory.put(expected, values)
        if unknown and self.counted:
            for entry, value in zip(unknown, self._ask([entry.key for entry in unknown]), strict=True):
                if value is None:
                    memory.not_stored(entry)
        self._next_offset, self._count, self._epoch = self._after(added, next_offset, epoch)
        if self._marks and self._marks[-1][0] == memory.dirtied:
            self._marks.pop()
        self._marks.append((memory.dirtied, self._next_offset, self._epoch))
        excess = memory.dirty_bytes - self._dirty_bytes_max()
        if excess > 0:
            self._spill_oldest(max(excess, self._dirty_bytes // STEPS_MAX))

    def write(self, rows: Rows, *, added: int, next_offset: int, epoch: int | None = None) -> None:
        """As `expect` and `arrive`, in one go. Each key once."""
        newest = dict(rows)
        self.arrive(self.expect(newest), newest.values(), added=added, next_offset=next_offset, epoch=epoch)

    def _dirty_bytes_max(self) -> int:
        return min(self._dirty_bytes, max(self._dirty_bytes // STEPS_MAX, self.memory.budget.share_bytes // 2))

    def _after(self, added: int, next_offset: int, epoch: int | None) -> tuple[int, int, int]:
        count = self._count + added if self.counted else _UNCOUNTED
        return next_offset, count, self._epoch if epoch is None else epoch

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to spill."""
        return self.memory.is_dirty or self._spilled != self._meta()

    def spill(self) -> None:
        """Bring all that has changed to RocksDB. Raises `OSError`."""
        self.memory.forget_answers()
        if self.is_dirty:
            self._spill_oldest(self.memory.dirty_bytes)

    def spilling(self) -> Iterator[None]:
        """Bring all that has changed until now to RocksDB, a part of it at each step. Raises `OSError`."""
        memory = self.memory
        memory.forget_answers()
        until = memory.dirtied
        if self.is_dirty:
            self._spill_oldest(self._dirty_bytes // STEPS_MAX)
            yield
        while memory.cleaned < until:
            self._spill_oldest(self._dirty_bytes // STEPS_MAX)
            yield

    def _spill_oldest(self, bytes_min: int) -> None:
        """Bring the rows to RocksDB that have been dirty for longest, in one batch with what holds when it is there.

        The position is the newest before which every write has all its rows there.
        """
        rows, growth = self.memory.oldest(bytes_min)
        cleaned = self.memory.cleaned + len(rows)
        next_offset, count, epoch = self._spilled
        marks = self._marks
        passed = 0
        for dirtied, mark_offset, mark_epoch in marks:
            if dirtied > cleaned:
                break
            next_offset, epoch = mark_offset, mark_epoch
            passed += 1
        if self.counted:
            count = self._count - (self.memory.growth - growth)
        self._put(rows, (next_offset, count, epoch))
        self.memory.spilled(len(rows))
        for _ in range(passed):
            marks.popleft()
        if next_offset - self._flushed_offset > FLUSH_RECORDS:
            self._flush(wait=False)

    def _put(self, rows: Rows, meta: tuple[int, int, int]) -> None:
        batch = self._new_batch()
        for key, value in rows:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        reach = max(self.reach, meta[0])
        batch.put(_META_KEY, _META.pack(*meta))
        batch.put(_REACH_KEY, _REACH.pack(reach))
        try:
            self._db.write(batch, self._write_options)
        except Exception as exc:
            raise OSError(f"cannot write to {self.path}: {exc}") from exc
        self._spilled = meta
        self._reach = reach

    def page(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """At most `limit` rows in the order of their keys, from the first key beyond `after`. Raises `StoreDamaged`."""
        self.spill()
        found: list[tuple[bytes, bytes]] = []
        try:
            for key, value in self._db.items(from_key=after or None):
                if key not in (after, *_OUR_KEYS):
                    found.append((key, value))
                    if len(found) == limit:
                        break
        except Exception as exc:
            raise StoreDamaged(f"{self.path}: {exc}", self.path) from exc
        return found

    def scan(self, visit: Callable[[Sequence[tuple[bytes, bytes]]], None]) -> None:
        """As `scanning`, in one go."""
        for _ in self.scanning(visit):
            pass

    def scanning(self, visit: Callable[[Sequence[tuple[bytes, bytes]]], None]) -> Iterator[None]:
        """Call `visit` with all rows, some at each step, and check that all are there. Raises `StoreDamaged`.

        A store that was filled in bulk has its count from the last step on.
        """
        self.spill()
        found = 0
        is_whole = False
        rows: Any = None
        try:
            rows = iter(self._db.items(read_opt=_once()))
            while page := list(itertools.islice(rows, _SCAN_ROWS)):
                if page[-1][0] >= _META_KEY:  # no row of ours has a key beyond it
                    page = [row for row in page if row[0] not in _OUR_KEYS]
                    is_whole = True
                found += len(page)
                visit(page)
                yield
        except Exception as exc:
            raise StoreDamaged(f"{self.path}: {exc}", self.path) from exc
        finally:
            del rows  # held by a traceback it would keep the database open, and who rebuilds it finds it locked
        if self._count == _UNCOUNTED:
            if not is_whole:  # rocksdict ends at a block that is damaged, and says nothing
                raise StoreDamaged(f"{self.path}: its rows end before the last one", self.path)
            self._count = found
            self.spill()
        elif found != self._count:
            raise StoreDamaged(f"{self.path}: {found} rows, but the store says {self._count}", self.path)

    def begin_bulk(self) -> None:
        """A store is about to be filled from the changelog's beginning: `restore` does not look for what is there.

        So nobody knows how many rows there are, until a scan has counted them. That holds beyond a kill, too: a store
        that finds itself uncounted goes on where it stopped, and every checksum is met by the scan that counts.
        """
        assert not self.counted or not self._next_offset, "only a store that begins, or that was being filled"
        self._count = _UNCOUNTED
        if not self._bulk:
            self._reopen(bulk=True)

    def end_bulk(self) -> None:
        """Be as any other store; what was filled is merged in the background. Raises `StoreDamaged`."""
        if self._bulk:
            self._reopen(bulk=False)

    def _reopen(self, *, bulk: bool) -> None:
        self._disconnect()
        self._bulk = bulk
        try:
            self._use(self._connect(bulk=bulk))
        except Exception as exc:
            raise StoreDamaged(f"{self.path}: {exc}", self.path) from exc

    @property
    def counted(self) -> bool:
        """Whether it is known how many rows there are."""
        return self._count != _UNCOUNTED

    def restore(
        self, records: Sequence[tuple[bytes, bytes | None]], *, next_offset: int, epoch: int | None = None
    ) -> None:
        """Apply consecutive changelog records: the last value of a key counts. They go by the memory for rows."""
        self.spill()
        if not self.counted:
            self._put_past_memory(records, self._after(0, next_offset, epoch))
            self.memory.forget({key for key, _value in records} if len(self.memory) else ())
            return
        self.end_bulk()  # a restore was interrupted when this store had been counted, others not
        newest = dict(records)
        existing = self._ask(list(newest))  # which has all: nothing is dirty
        pairs = zip(newest.values(), existing, strict=True)
        added = sum((value is not None) - (old is not None) for value, old in pairs)
        self._put_past_memory(newest.items(), self._after(added, next_offset, epoch))
        self.memory.forget(newest)

    def _put_past_memory(self, rows: Rows, meta: tuple[int, int, int]) -> None:
        """There is nothing dirty."""
        self._put(rows, meta)
        self._next_offset, self._count, self._epoch = meta

    def flush(self, *, wait: bool = True) -> None:
        """Bring everything to disk, so that the next start reads less of the changelog. Raises `OSError`.

        Without `wait` RocksDB does it in the background; what it cannot write then fails the next spill.
        """
        self.spill()
        self._flush(wait=wait)

    def _flush(self, *, wait: bool) -> None:
        try:
            self._db.flush(wait)
        except Exception as exc:
            raise OSError(f"cannot write to {self.path}: {exc}") from exc
        self._flushed_offset = self._spilled[0]

    def compact(self) -> None:
        """Rewrite everything, so that nothing deleted or overwritten is left on disk. Blocks for as long as it takes.

        RocksDB does it by itself within a day (`PERIODIC_COMPACTION_S`).
        """
        self.flush()
        everything = CompactOptions()
        everything.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        self._db.compact_range(None, None, everything)

    def close(self) -> None:
        """Flush and close."""
        self.memory.budget.leave(self)
        self._disconnect()

    def _disconnect(self) -> None:
        try:
            self.flush()
        except OSError:  # what it could not write the changelog has
            with contextlib.suppress(Exception):  # files that stay open would be locked for whoever is next
                self._db.close()
            raise
        self._db.close()

    def _new_batch(self) -> Any:
        return WriteBatch(raw_mode=True)

    def _get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key)
        except Exception as exc:
            raise StoreDamaged(f"{self.path}: {exc}", self.path) from exc
        return value
