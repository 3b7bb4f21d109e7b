"""Where the row stores of a process are, and how RocksDB is set up for them.

A store that is filled from nothing has other settings than one that is used (docs/adr/0010).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, MemtableFactory, Options, Rdict

from app.stream.store import PartitionStore, StoreDamaged
from app.stream.write_back import Budget, RowMemory

STALE_S: Final = 7 * 86_400

_BULK_WRITE_BUFFERS: Final = 3
_NO_STALL: Final = 1 << 20
"""Files of level 0 at which RocksDB would hold writes up until it has merged them. A write that waits does so with
Python's lock, so the whole process would stand still, and after a bulk fill there are hundreds; many files only make
reads slower.
"""
_PLAIN_LEVELS: Final = 2
"""Levels that are not compressed: what is in them is soon merged again. Below them, where most rows of a large store
are, it pays.
"""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Memory that RocksDB and the rows before it may take.

    Parameters
    ----------
    cache_bytes
        Block cache, shared by all stores of the process (RocksDB's default is 2 GiB for each).
    memtable_bytes
        Write buffer of one store; at most two of them exist at a time.
    bulk_memtable_bytes
        The same while the store is filled from nothing, at most three at a time: fewer files.
    row_bytes
        Rows of all stores of the process that are kept in memory as they are, the last written.
    dirty_bytes
        Rows of one store that have changed and are not spilled; less where that would be more than half of its share
        of `row_bytes`. The more there are, the more often a row changes before RocksDB sees it.
    """

    cache_bytes: int = 32 << 20
    memtable_bytes: int = 8 << 20
    bulk_memtable_bytes: int = 16 << 20
    row_bytes: int = 128 << 20
    dirty_bytes: int = 16 << 20


class StoreFactory:
    """Opens stores that share one block cache, and the memory for rows."""

    def __init__(self, directory: Path, options: StoreOptions | None = None) -> None:
        self.directory = directory
        self._options = options or StoreOptions()
        self._cache = Cache(self._options.cache_bytes)
        self.budget = Budget(self._options.row_bytes)

    def cache_bytes(self) -> int:
        """What of the block cache is in use."""
        return int(self._cache.get_usage())

    def path(self, table: str, partition: int) -> Path:
        """Where the store of a table partition lives."""
        return self.directory / table / str(partition)

    def open(self, table: str, partition: int) -> PartitionStore:
        """Raises `StoreDamaged` when RocksDB refuses to open the files, `OSError` when the directory cannot be made."""
        path = self.path(table, partition)
        if self._doubt_of(path).exists():
            raise StoreDamaged(f"{path}: a row in it could not be read", path)
        path.mkdir(parents=True, exist_ok=True)
        try:
            memory = RowMemory(self.budget)
            return PartitionStore(
                self._connect(path), path, partial(self._connect, path), memory, dirty_bytes=self._options.dirty_bytes
            )
        except Exception as exc:  # rocksdict raises plain Exception
            raise StoreDamaged(f"{path}: {exc}", path) from exc

    def wipe(self, table: str, partition: int) -> None:
        """Remove the store of a table partition; it must be closed."""
        path = self.path(table, partition)
        shutil.rmtree(path, ignore_errors=True)
        self._doubt_of(path).unlink(missing_ok=True)

    def doubt(self, table: str, partition: int) -> None:
        """Note, beyond the end of the process, that the store of a table partition cannot be trusted."""
        self._doubt_of(self.path(table, partition)).touch()

    @staticmethod
    def _doubt_of(path: Path) -> Path:
        return path.with_name(f"{path.name}.doubt")

    def drop_stale(self, table: str, owned: Iterable[int], now_s: float) -> list[int]:
        """Remove the stores of partitions that are not ours and were not written for `STALE_S`; returns which.

        They were kept for a cheap return. What has been erased elsewhere meanwhile must not stay on this disk.
        """
        directory = self.directory / table
        ours = {str(partition) for partition in owned}
        stale = [
            path
            for path in (directory.iterdir() if directory.is_dir() else ())
            if path.name.isdigit() and path.name not in ours and now_s - _written_s(path) > STALE_S
        ]
        for path in stale:
            shutil.rmtree(path, ignore_errors=True)
        return sorted(int(path.name) for path in stale)

    def _connect(self, path: Path, *, bulk: bool = False) -> Rdict:
        options = self._common_options()
        (_set_bulk if bulk else _set_usual)(options, self._options)
        # Without the second, rocksdict opens a store that exists with the options that it was made with.
        return Rdict(str(path), options, {"default": options})

    def _common_options(self) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 << 20)
        options.set_paranoid_checks(True)
        table = BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_bloom_filter(10, False)
        table.set_cache_index_and_filter_blocks(False)  # in the cache they would drive each other out
        options.set_block_based_table_factory(table)
        return options


def _set_usual(options: Options, sizes: StoreOptions) -> None:
    options.set_write_buffer_size(sizes.memtable_bytes)
    options.set_max_write_buffer_number(2)
    options.set_level_zero_slowdown_writes_trigger(_NO_STALL)
    options.set_level_zero_stop_writes_trigger(_NO_STALL)
    options.set_compression_per_level([DBCompressionType.none()] * _PLAIN_LEVELS + [DBCompressionType.lz4()] * 5)


def _set_bulk(options: Options, sizes: StoreOptions) -> None:
    """For a store that is filled from nothing, read once from end to end, and opened as any other after that.

    Nothing is merged or compressed meanwhile: that comes later, once, in the background. Rows are sorted when a file is
    written, by RocksDB's thread, and not as they come, with Python's lock held.
    """
    options.set_write_buffer_size(sizes.bulk_memtable_bytes)
    options.set_max_write_buffer_number(_BULK_WRITE_BUFFERS)
    options.set_memtable_factory(MemtableFactory.vector())
    options.set_allow_concurrent_memtable_write(False)  # a vector cannot
    options.set_disable_auto_compactions(True)
    options.set_compression_type(DBCompressionType.none())


def _written_s(path: Path) -> float:
    """When anything in the directory was last written, seconds since 1970."""
    return max((file.stat().st_mtime for file in path.iterdir()), default=0.0)
