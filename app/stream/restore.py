"""Restore: bring row stores up to the end of their changelogs, in bulk.

The end is the high watermark of a fetch response, not ListOffsets: it is exact on every broker, and a tail that
compaction or a transaction marker left without records cannot make the restore wait for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from aiokafka import TopicPartition

from app.stream.fence import Fence
from app.stream.fetch import ChangelogConsumer
from app.stream.started import started
from app.stream.store import StoreDamaged

log = structlog.get_logger(__name__)

RESTORE_STALL_S: Final = 60.0
_FETCH_BYTES: Final = 2 << 20
_LOOK_MS: Final = 20
"""How long to wait for records before a look at whether the end is reached. Mostly a partition whose state is on disk
learns only that there is nothing more, and stands still meanwhile: an empty fetch wakes nobody.
"""
BULK_RECORDS: Final = 20_000
"""Fewer are not worth another setting of the store."""
_YIELDS: Final = 4
"""Turns of the event loop after which aiokafka has sent the next fetch: it is answered while we apply this one."""


class Restorable(Protocol):
    """What changelog records are applied to: a `PartitionStore`."""

    @property
    def next_offset(self) -> int:
        """The changelog offset that comes next."""

    @property
    def reach(self) -> int:
        """An offset behind all that it holds."""

    @property
    def counted(self) -> bool:
        """Whether the number of its rows is known."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def begin_bulk(self) -> None:
        """Be filled in bulk from now on."""

    def restore(
        self, records: Sequence[tuple[bytes, bytes | None]], *, next_offset: int, epoch: int | None = None
    ) -> None:
        """Apply consecutive records."""


class RestoreStalled(RuntimeError):
    """No progress for `RESTORE_STALL_S`: the process ends, and says which partitions were left."""


async def restore_partitions(
    settings: Mapping[str, Any],
    topic: str,
    stores: Mapping[int, Restorable],
    *,
    interrupted: Callable[[], bool] = lambda: False,
    on_remaining: Callable[[int], None] = lambda remaining: None,
    stall_s: float = RESTORE_STALL_S,
    connect: Callable[..., Any] = ChangelogConsumer,
    fences: Mapping[int, Fence] | None = None,
    bulk_records: int = BULK_RECORDS,
) -> dict[int, int] | None:
    """Read `topic` into the stores, one for each partition, up to its end.

    Parameters
    ----------
    settings
        Connection settings for `AIOKafkaConsumer`.
    interrupted
        Asked between fetches; true abandons the restore (a new rebalance has begun).
    on_remaining
        Told how many records are left, for the metric.
    connect
        Makes the consumer.
    fences
        Tell rows from void records, by partition; they go on where they stopped. Without them each starts at its
        store's epoch.
    bulk_records
        An empty store that more records follow is filled in bulk.

    Returns
    -------
    dict or None
        Records applied, by partition; None when interrupted. What was applied stays applied.

    Raises
    ------
    RestoreStalled
        When nothing arrived for `stall_s` seconds.
    StoreDamaged
        When a store claims more of the changelog than there is (it belongs to another cluster or a deleted topic).
    """
    if not stores:
        return {}
    consumer = connect(
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=_LOOK_MS,
        **settings,
    )
    async with started(consumer):
        partitions = {TopicPartition(topic, partition): store for partition, store in stores.items()}
        if fences is None:
            fences = {partition: Fence(getattr(store, "epoch", 0)) for partition, store in stores.items()}
        consumer.assign(list(partitions))
        for tp, store in partitions.items():
            consumer.seek(tp, store.next_offset)
        return await _read_to_end(consumer, partitions, fences, interrupted, on_remaining, stall_s, bulk_records)


async def _read_to_end(
    consumer: Any,
    partitions: dict[TopicPartition, Restorable],
    fences: Mapping[int, Fence],
    interrupted: Callable[[], bool],
    on_remaining: Callable[[int], None],
    stall_s: float,
    bulk_records: int,
) -> dict[int, int] | None:
    applied = {tp.partition: 0 for tp in partitions}
    pending = set(partitions)
    progress_at = time.monotonic()
    while True:
        remaining = 0
        for tp in list(pending):
            end = consumer.highwater(tp)
            position = await consumer.position(tp)
            if end is not None and partitions[tp].reach > end:
                ahead = f"at changelog offset {partitions[tp].reach}, but {tp.topic}[{tp.partition}] ends at {end}"
                raise StoreDamaged(f"{partitions[tp].path}: {ahead}", partitions[tp].path)
            if end is not None and position >= end:
                pending.discard(tp)
            else:
                remaining += (end or position + 1) - position
        on_remaining(remaining)
        if not pending:
            return applied
        if interrupted():
            return None
        fetched = await consumer.getmany(*pending, timeout_ms=_LOOK_MS)
        for _ in range(_YIELDS):
            await asyncio.sleep(0)
        for tp, records in fetched.items():
            store = partitions[tp]
            fence = fences[tp.partition]
            if not store.counted or (
                store.next_offset == 0 and consumer.highwater(tp) - records[0].offset > bulk_records
            ):
                store.begin_bulk()
            rows = fence.admit(records)
            store.restore(rows, next_offset=records[-1].offset + 1, epoch=fence.epoch)
            applied[tp.partition] += len(rows)
            await asyncio.sleep(0)
        if fetched:
            progress_at = time.monotonic()
        elif time.monotonic() - progress_at > stall_s:
            left = sorted(f"{tp.topic}[{tp.partition}]" for tp in pending)
            raise RestoreStalled(f"restore without progress for {stall_s:.0f} s; still to read: {', '.join(left)}")
