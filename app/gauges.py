"""Gauges that are read when somebody asks, not counted on the way: of any process with a row table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from app.heap import native_bytes, python_blocks
from app.metrics import Metrics
from app.stream.app import StreamApp
from app.stream.table import RowTable


def read_gauges(
    metrics: Metrics,
    *,
    app: StreamApp,
    table: RowTable,
    directory: Path,
    ready: bool,
    positions: Mapping[tuple[str, int], int] | None = None,
) -> None:
    """Set readiness, lag, state and disk to what they are now.

    Parameters
    ----------
    directory
        Where the rows are; its disk is measured.
    positions
        Lag by topic and partition where the caller knows better than by what is complete.
    """
    metrics.ready.set(ready)
    stores = list(table.stores.values())
    metrics.state_rows.labels(table.name).set(sum(len(store) for store in stores))
    metrics.state_bytes.labels(table.name).set(sum(store.disk_bytes() for store in stores))
    store_memory = sum(store.memory_bytes() for store in stores) + table.factory.cache_bytes()
    metrics.state_memory.labels(table.name).set(store_memory)
    metrics.row_memory.labels(table.name).set(sum(store.memory.bytes for store in stores))
    metrics.python_blocks.set(python_blocks())
    metrics.native_memory.set(native_bytes())
    hits, misses = table.factory.budget.take_reads()
    metrics.row_reads.labels(table.name, "memory").inc(hits)
    metrics.row_reads.labels(table.name, "rocksdb").inc(misses)
    usage = shutil.disk_usage(directory)
    metrics.disk_free.set(usage.free)
    metrics.disk_size.set(usage.total)
    metrics.transaction_open.clear()
    for (topic, partition), seconds in app.batches.held.seconds.items():
        metrics.transaction_open.labels(topic, str(partition)).set(seconds)
    metrics.consumer_lag.clear()  # a partition that was given up has no lag here: another process tells it
    if app.tables.recovery.completed.is_set():
        metrics.restore_remaining.labels(table.name).set(0)  # a restore that was interrupted has not said so
        lags: dict[tuple[str, int], int] = {(tp.topic, tp.partition): lag for tp, lag in app.batches.lag().items()}
        for (topic, partition), lag in {**lags, **(positions or {})}.items():
            metrics.consumer_lag.labels(topic, str(partition)).set(lag)
