"""A compacted control topic that every worker reads whole: model snapshots, and whatever else all must know.

No consumer group and no offsets: the topic is read from its beginning to the high watermark before `ready`, then
followed, with the partitions that it is given meanwhile. Faust's GlobalTable would do the same through the main
consumer, and can wait for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from app.core.raised import where_raised
from app.stream.background import end
from app.stream.committed import READ_COMMITTED, readable_end
from app.stream.started import started

log = structlog.get_logger(__name__)

_CATCH_UP_MS: Final = 20
"""How long the broker may hold an empty fetch while a process waits to know that it has read everything: a partition
stands still as long."""
_FOLLOW_MS: Final = 200
_RETRY_S: Final = 1.0
_METADATA_MS: Final = 20_000
"""How old what is known of the topic's partitions may be: so late one that is added is read, from its beginning."""

Apply = Callable[[bytes | None, bytes | None, int], object]


async def read_to_end(settings: Mapping[str, Any], topic: str, apply: Apply, timeout_s: float = 60.0) -> None:
    """Call `apply` for every record that `topic` holds now, oldest first. Raises `TimeoutError`, naming the topic."""
    reader = BroadcastReader(settings, topic, apply)
    try:
        await reader.start(timeout_s)
    finally:
        await reader.stop()


class BroadcastReader:
    """Calls `apply(key, value, offset)` for every record of `topic`, oldest first, for as long as it runs.

    `anew` is called before the topic is read from its beginning: once at first, and again after a failure. `starts`
    may say, for partitions of which less will do, at which offset to begin.

    `apply` must not raise: a bad record is its business to count and skip. Should it raise all the same, everything is
    read again, and again: what depends on the topic stays as it was, and `as_of` says so.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topic: str,
        apply: Apply,
        *,
        anew: Callable[[], object] = lambda: None,
        starts: Callable[[Collection[int]], Awaitable[Mapping[int, int]]] | None = None,
        connect: Callable[..., Any] = AIOKafkaConsumer,
    ) -> None:
        self._settings = dict(settings)
        self._topic = topic
        self._apply = apply
        self._anew = anew
        self._starts = starts
        self._connect = connect
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.newest: dict[int, Any] = {}
        """The last record that has been read of each partition."""
        self.whole = False
        """Whether everything has been read since it last began anew."""
        self.as_of: float = 0.0
        """Monotonic time at which the reader was last known to have read everything: at the end of each partition, as
        the broker said then. While no broker answers it stands still."""
        self.seen_to: float = 0.0
        """Monotonic time before which everything that was written has been read, or taken back. Behind `as_of` while
        somebody's transaction is open: what stands behind its first record, whoever wrote it, cannot be read yet."""

    async def start(self, timeout_s: float = 60.0) -> None:
        """Start reading and wait until what is there now has been applied.

        Raises
        ------
        TimeoutError
            Naming the topic.
        """
        self._task = asyncio.create_task(self._run(), name=f"broadcast:{self._topic}")
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            raise TimeoutError(f"topic {self._topic!r} could not be read to its end within {timeout_s:.0f} s") from None

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    def restart(self) -> None:
        """Read everything again from the beginning, while whatever else goes on."""
        if self._task is not None:
            self._task.cancel()
            self._task = asyncio.create_task(self._run(), name=f"broadcast:{self._topic}")

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except KafkaError as exc:
                log.warning("broadcast_retry", topic=self._topic, error=str(exc))
            except Exception as exc:  # nobody awaits this task: it would end unseen
                log.error("broadcast_failed", topic=self._topic, error=where_raised(exc))
            await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        wait_ms = _FOLLOW_MS if self._ready.is_set() else _CATCH_UP_MS
        consumer = self._connect(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=wait_ms,
            isolation_level=READ_COMMITTED,
            **{"metadata_max_age_ms": _METADATA_MS, **self._settings},
        )
        async with started(consumer):
            partitions = await self._partitions(consumer)
            starts = await self._starts([tp.partition for tp in partitions]) if self._starts else {}
            reading = _Reading(consumer, {tp: starts.get(tp.partition, 0) for tp in partitions})
            self.newest.clear()
            self.whole = False
            self._anew()
            while True:
                fetched = await consumer.getmany(timeout_ms=wait_ms)
                for tp, records in fetched.items():
                    for record in records:
                        self._take(record)
                        self.newest[tp.partition] = record
                if (as_of := await reading.complete()) is not None:
                    self.as_of = as_of
                    self.seen_to = reading.seen_to
                    self.whole = True
                    self._ready.set()
                    wait_ms = consumer._fetcher._fetch_max_wait_ms = _FOLLOW_MS
                if added := self._numbers(consumer) - reading.numbers():
                    log.warning("partitions_added", topic=self._topic, partitions=sorted(added))
                    await reading.add(self._topic, added)

    def _take(self, record: Any) -> None:
        self._apply(record.key, record.value, record.offset)

    def _numbers(self, consumer: Any) -> set[int]:
        return set(consumer.partitions_for_topic(self._topic) or ())

    async def _partitions(self, consumer: Any) -> list[TopicPartition]:
        while True:
            await consumer._client.force_metadata_update()
            if found := self._numbers(consumer):
                return [TopicPartition(self._topic, partition) for partition in sorted(found)]
            consumer._client.add_topic(self._topic)
            await asyncio.sleep(0.2)


class _Written:
    """Until when everything that was written to a partition has been read. Pure.

    An end that a fetch told is waited for, whatever transaction is open before it; then the next one is.
    """

    def __init__(self) -> None:
        self._end: int | None = None
        self._told_at = 0.0
        self.seen_to = 0.0

    def look(self, position: int, highwater: int, now: float) -> None:
        """A fetch has told the partition's end, and everything before `position` is read."""
        if self._end is not None and position >= self._end:
            self.seen_to, self._end = self._told_at, None
        if self._end is None:
            self._end, self._told_at = highwater, now
        if position >= self._end:
            self.seen_to, self._end = self._told_at, None


class _Reading:
    """What a consumer is assigned by hand, and when it was last known to have read it all."""

    def __init__(self, consumer: Any, offsets: Mapping[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._read: dict[TopicPartition, tuple[int | None, float]] = {}
        """Which end of a partition was met last (aiokafka's stamp of the fetch that told it), and when (monotonic)."""
        self._written: dict[TopicPartition, _Written] = {}
        self._begin(offsets)

    def _begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._read = dict.fromkeys(offsets, (None, 0.0))
        self._written = {tp: _Written() for tp in offsets}
        self._consumer.assign(list(offsets))
        for tp, offset in offsets.items():
            self._consumer.seek(tp, offset)  # before what retention has left it goes on at the oldest record

    @property
    def seen_to(self) -> float:
        """Of the partition that is farthest behind."""
        return min(written.seen_to for written in self._written.values())

    def numbers(self) -> set[int]:
        """Of the partitions that are read."""
        return {tp.partition for tp in self._read}

    async def add(self, topic: str, numbers: Iterable[int]) -> None:
        """Read these from their beginning, too; the others go on where they are."""
        offsets = {tp: int(await self._consumer.position(tp)) for tp in self._read}
        self._begin(offsets | {TopicPartition(topic, number): 0 for number in sorted(numbers)})

    async def complete(self) -> float | None:
        """Until when (monotonic) everything has been read, as far as is known; None: not yet to any end.

        A high watermark is as old as the fetch that brought it: when no broker answers, the old one is still met.
        """
        for tp, (met, _) in self._read.items():
            end, stamp = readable_end(self._consumer, tp), self._consumer.last_poll_timestamp(tp)
            if end is None or stamp == met:
                continue
            position, now = await self._consumer.position(tp), time.monotonic()
            self._written[tp].look(position, self._consumer.highwater(tp), now)
            if position >= end:
                self._read[tp] = (stamp, now)
        return min(at for _, at in self._read.values()) or None
