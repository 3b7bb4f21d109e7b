"""A disk and a RocksDB without a write-ahead log, in memory: what was not flushed may be gone after a kill, and what
the store had not spilled is gone with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from app.stream.store import PartitionStore, StoreDamaged
from app.stream.stores import StoreFactory
from app.stream.write_back import Budget, RowMemory

DIRTY_BYTES = 6_000
"""Some ten rows, so that there are spills between those by the clock."""
NO_SPACE = "IO error: No space left on device"
ROW_BYTES = 12_000
"""Some twenty of the rows of a store, so that the others are read from the database."""


class Files:
    """One database as it stands on a disk: what is durable, and what is only in the memtable."""

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.memtable: list[dict[bytes, bytes | None]] = []

    def flush(self, writes: int | None = None) -> None:
        """Make the oldest `writes` writes durable, all when None."""
        writes = len(self.memtable) if writes is None else writes
        for batch in self.memtable[:writes]:
            for key, value in batch.items():
                if value is None:
                    self.durable.pop(key, None)
                else:
                    self.durable[key] = value
        del self.memtable[:writes]


class Disk:
    """The databases of one worker, by path."""

    def __init__(self) -> None:
        self.files: dict[Path, Files] = {}
        self.full = False
        """Nothing more can be written."""

    def refuse(self) -> None:
        """As RocksDB does when there is no space."""
        if self.full:
            raise Exception(NO_SPACE)

    def crash(self, rng: Random) -> None:
        """The process was killed: of each memtable some beginning had been flushed."""
        for files in self.files.values():
            files.flush(rng.randint(0, len(files.memtable)))
            files.memtable.clear()


class Batch:
    """Stands for rocksdict's WriteBatch."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows[key] = None


class Database:
    """Stands for rocksdict's Rdict."""

    def __init__(self, files: Files, disk: Disk, point: Callable[[str], None]) -> None:
        self._files = files
        self._disk = disk
        self._point = point
        self._rows = dict(files.durable)

    def set_options(self, _options: Any) -> None:
        """There are no files to compact."""

    def get(self, keys: Any) -> Any:
        return [self._rows.get(key) for key in keys] if isinstance(keys, list) else self._rows.get(keys)

    def write(self, batch: Batch, _options: Any) -> None:
        self._point("store before")
        self._disk.refuse()
        self._files.memtable.append(batch.rows)
        for key, value in batch.rows.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self._point("store after")

    def items(self, read_opt: Any = None, from_key: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(entry for entry in self._rows.items() if entry[0] >= (from_key or b"")))

    def flush(self, _wait: bool = True) -> None:
        self._disk.refuse()
        self._files.flush()

    def close(self) -> None:
        """Nothing to do; who closes has flushed."""


class Store(PartitionStore):
    """The real store on the database in memory."""

    def _new_batch(self) -> Batch:
        return Batch()


class Stores(StoreFactory):
    """Opens stores on a disk; `point` is told before and after writes, `damaged` whether an open shall fail."""

    def __init__(self, disk: Disk, damaged: Callable[[], bool], point: Callable[[str], None]) -> None:
        self.directory = Path("/simulated")
        self.disk = disk
        self._damaged = damaged
        self._point = point

    def open(self, table: str, partition: int) -> PartitionStore:
        path = self.path(table, partition)
        files = self.disk.files.setdefault(path, Files())
        if files.durable and self._damaged():
            raise StoreDamaged(f"{path}: a checksum is wrong", path)
        memory = RowMemory(Budget(ROW_BYTES))
        return Store(
            Database(files, self.disk, self._point),
            path,
            lambda bulk: Database(files, self.disk, self._point),
            memory,
            dirty_bytes=DIRTY_BYTES,
        )

    def wipe(self, table: str, partition: int) -> None:
        self.disk.files.pop(self.path(table, partition), None)
