"""Counts in the background how the numbers are distributed whose percentiles the policy asks for, and has rows follow.

Each worker counts its own partitions, a page of rows at a time, at `interval_s` and for at most a share of its time,
and publishes the counts; the worker that has partition 0 adds all of them up and publishes thresholds (see
`app.core.percentiles`). What is read on the way of rows that no longer are what the thresholds say is changed as any
row is: durably, and told on `segments`. When the thresholds have moved, the rows are looked through at once.

A policy without percentiles has none of this: no counting, no reader, no records.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from aiokafka.errors import KafkaError

from app.core.erasure import is_mark
from app.core.percentiles import Board, Measured, counted
from app.core.profile import Profile, decode_profile
from app.core.sketch import Sketch
from app.stream.backfill import LAG_MAX, PAGE_ROWS
from app.stream.engine import Engine
from app.stream.pace import Pace
from schemas.percentiles import Percentiles, encode_percentiles, percentiles_key
from schemas.topics import PERCENTILES

log = structlog.get_logger(__name__)

LEADER: Final = 0
"""Who has this partition publishes the thresholds."""
FORGET_MS: Final = 7 * 86_400_000
"""Records of numbers that the policy no longer asks for are deleted when they are so old."""
_LOOK_S: Final = 0.5
_WAIT_FOR_LAG_S: Final = 0.25


class MeasuredRows(Protocol):
    """What the census asks about the policy in force, as `app.core.processor.Processor` answers it."""

    @property
    def policy_id(self) -> int:
        """Its id."""

    @property
    def measured(self) -> Sequence[Measured]:
        """The numbers whose percentiles it asks for."""

    def astray(self, profile: Profile, user: str, now_ms: int) -> bool:
        """Whether a row's segments are not what the thresholds in force say."""


class PercentileFeed(Protocol):
    """What all workers have published, kept up to date once it is asked for."""

    @property
    def board(self) -> Board:
        """What has been read so far."""

    async def follow(self) -> bool:
        """Read the topic, if it is not being read already; whether it has been read to its end once."""


class _Done(NamedTuple):
    """When a partition was counted last: the tenure and the policy then, and which thresholds were in force."""

    mark: tuple[object, int]
    at_s: float
    moves: int


class Census:
    """Counts the partitions of an engine for as long as it runs.

    Parameters
    ----------
    ready
        Whether every row of ours is of the policy in force: counting waits for the backfill.
    partitions
        Of the source, over all workers.
    clock_ms
        Event-time now.
    interval_s
        How often a partition is counted, and thresholds are moved, at most.
    share
        Of the time, at most, that it works; it pauses while a partition lags.
    """

    def __init__(
        self,
        engine: Engine,
        policy: MeasuredRows,
        feed: PercentileFeed,
        ready: Callable[[], bool],
        clock_ms: Callable[[], int],
        *,
        partitions: int,
        interval_s: float,
        share: float,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._feed = feed
        self._ready = ready
        self._clock_ms = clock_ms
        self._partitions = partitions
        self._interval_s = interval_s
        self._pace = Pace(share)
        self._done: dict[int, _Done] = {}
        self._decided: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for partitions to count."""
        self._task = asyncio.create_task(self._run(), name="census")

    async def stop(self) -> None:
        """Stop, wherever it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                if self._policy.measured and await self._feed.follow():
                    await self._look()
            except (KafkaError, TimeoutError) as exc:
                log.warning("census_retry", error=str(exc))
            except Exception as exc:
                self._engine.app.fatal("the census failed", exc)
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        if self._ready() and self._engine.app.batches.flow_active:
            for partition, done in self._due():
                if await self._count(partition, done.mark):
                    self._done[partition] = done
        if LEADER in self._engine.tenures():
            await self._decide()

    def _due(self) -> Iterator[tuple[int, _Done]]:
        moves, policy_id = self._feed.board.moves, self._policy.policy_id
        for partition, tenure in self._engine.tenures().items():
            last = self._done.get(partition)
            due = _Done((tenure, policy_id), time.monotonic(), moves)
            if (
                last is None
                or (last.mark, last.moves) != (due.mark, due.moves)
                or due.at_s - last.at_s >= self._interval_s
            ):
                yield partition, due

    # -- counting

    def _current(self, partition: int, mark: tuple[object, int]) -> bool:
        """Whether the partition is still ours and the policy still in force."""
        return self._engine.tenures().get(partition) is mark[0] and self._policy.policy_id == mark[1]

    async def _count(self, partition: int, mark: tuple[object, int]) -> bool:
        """Count a partition's users and publish it; False when it is no longer wanted."""
        measured = self._policy.measured
        sketches = {one.text: Sketch() for one in measured}
        cursor, at_ms = b"", self._clock_ms()
        await self._engine.settled(partition)
        while True:
            await self._rest(partition, mark)
            if not self._current(partition, mark):
                return False
            with self._pace:
                page = self._engine.table.stores[partition].page(cursor, PAGE_ROWS)
                astray = list(self._read(page, measured, sketches))
            if astray:
                with self._pace:
                    if await self._engine.adjust(partition, astray) is None:
                        return False
            if len(page) < PAGE_ROWS:
                break
            cursor = page[-1][0]
        await self._publish([counted(one, sketches[one.text], partition, at_ms) for one in measured])
        return True

    def _read(
        self, page: Sequence[tuple[bytes, bytes]], measured: Sequence[Measured], sketches: Mapping[str, Sketch]
    ) -> Iterator[bytes]:
        """Count the users of a page; gives those whose rows must follow."""
        now_ms = self._clock_ms()
        for key, value in page:
            if is_mark(key):
                continue
            profile, user = decode_profile(value), key.decode()
            if profile.erased_ms or profile.merged_into or profile.policy != self._policy.policy_id:
                continue
            for one in measured:
                if one.features.isdisjoint(profile.missing):
                    number = one.value(profile, now_ms, user)
                    if number is not None:
                        sketches[one.text].put(number)
            if self._policy.astray(profile, user, now_ms):
                yield key

    async def _rest(self, partition: int, mark: tuple[object, int]) -> None:
        await self._pace.rest()
        source = (self._engine.source, partition)
        while self._engine.lag().get(source, 0) > LAG_MAX and self._current(partition, mark):  # noqa: ASYNC110
            await asyncio.sleep(_WAIT_FOR_LAG_S)

    # -- thresholds

    async def _decide(self) -> None:
        """Publish the thresholds that must change: of a number at most once an interval, unless one is missing."""
        board, now_s = self._feed.board, time.monotonic()
        for one in self._policy.measured:
            waits = self._decided.get(one.text, float("-inf")) + self._interval_s > now_s
            if waits and not board.lacks(one):
                continue
            record = board.due(one, self._partitions, self._clock_ms())
            if record is not None:
                self._decided[one.text] = now_s
                await self._publish([record])
                await self._read_back(record)
        await self._forget()

    async def _read_back(self, record: Percentiles) -> None:
        """Wait for our own record, so that what follows from it is decided on it."""
        for _ in range(100):
            if self._feed.board.thresholds().get(record.number) == record:
                return
            await asyncio.sleep(0.05)

    async def _forget(self) -> None:
        wanted = {one.text for one in self._policy.measured}
        for key in self._feed.board.older_than(self._clock_ms() - FORGET_MS, wanted):
            await (await self._engine.app.durable_producer.enqueue(PERCENTILES, key, None))

    async def _publish(self, records: Sequence[Percentiles]) -> None:
        producer = self._engine.app.durable_producer
        sent = [
            await producer.enqueue(PERCENTILES, percentiles_key(record), encode_percentiles(record))
            for record in records
        ]
        await asyncio.gather(*sent)
