"""Counts in the background how the numbers are distributed whose percentiles the policy asks for, and has rows follow.

Each worker counts its own partitions, a page of rows at a time, at `interval_s` and for at most a share of its time,
and publishes the counts; the worker that has partition 0 adds all of them up and publishes thresholds (see
`app.core.percentiles`). What is read on the way of rows that no longer are what the thresholds say is changed as any
row is: durably, and told on `segments`. When the thresholds have moved, the rows are looked through at once.

A policy without percentiles has none of this: no counting, no reader, no records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from aiokafka.errors import KafkaError

from app.core.erasure import is_mark
from app.core.percentiles import Board, Measured, Tally, counted
from app.core.profile import Profile
from app.core.row_heads import BadRow
from app.stream.backfill import LAG_MAX, PAGE_ROWS
from app.stream.background import Background
from app.stream.engine import Engine
from app.stream.pace import Pace
from app.stream.unreadable import decode_row
from schemas.percentiles import Percentiles, encode_percentiles, percentiles_key
from schemas.topics import PERCENTILES

log = structlog.get_logger(__name__)

LEADER: Final = 0
"""Who has this partition publishes the thresholds."""
UNREACHED_MAX: Final = 0.05
"""Share of a partition's rows that the backfill may not have reached yet; with more, a count would say little."""
AGAIN_S: Final = 5.0
"""When such a partition is counted again."""
FORGET_MS: Final = 7 * 86_400_000
"""Records of numbers that the policy no longer asks for are deleted when they are so old."""
_LOOK_S: Final = 0.5
_REST_FOR_LAG_S: Final = 0.25


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
    """A partition that was counted: the tenure and the policy then, how often thresholds had moved, when it was."""

    mark: tuple[object, int]
    at_s: float
    moves: int
    whole: bool = True


class Census(Background):
    """Counts the partitions of an engine for as long as it runs.

    Parameters
    ----------
    partitions
        Of the source, over all workers.
    clock_ms
        Event-time now.
    interval_s
        How often a partition is counted, and thresholds are moved, at most.
    share
        Of the time, at most, that it works; it pauses while a partition lags.
    """

    task_name = "census"

    def __init__(
        self,
        engine: Engine,
        policy: MeasuredRows,
        feed: PercentileFeed,
        clock_ms: Callable[[], int],
        *,
        partitions: int,
        interval_s: float,
        share: float,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._feed = feed
        self._clock_ms = clock_ms
        self._partitions = partitions
        self._interval_s = interval_s
        self._pace = Pace(share)
        self._done: dict[int, _Done] = {}
        self._decided: dict[str, float] = {}
        self._seen = (-1, 0)
        self._decided_s = float("-inf")

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
        if self._engine.app.batches.flow_active:
            for partition, done in self._due():
                counted_all = await self._count(partition, done.mark)
                if counted_all is not None:
                    self._done[partition] = done._replace(whole=counted_all)
        if LEADER in self._engine.tenures():
            await self._decide()

    def _due(self) -> Iterator[tuple[int, _Done]]:
        moves, policy_id = self._feed.board.moves, self._policy.policy_id
        for partition, tenure in self._engine.tenures().items():
            now = _Done((tenure, policy_id), asyncio.get_running_loop().time(), moves)
            last = self._done.get(partition)
            if (
                last is None
                or (last.mark, last.moves) != (now.mark, now.moves)
                or now.at_s - last.at_s >= (self._interval_s if last.whole else min(AGAIN_S, self._interval_s))
            ):
                yield partition, now

    # -- counting

    def _current(self, partition: int, mark: tuple[object, int]) -> bool:
        """Whether the partition is still ours and the policy still in force."""
        return self._engine.tenures().get(partition) is mark[0] and self._policy.policy_id == mark[1]

    async def _count(self, partition: int, mark: tuple[object, int]) -> bool | None:
        """Count a partition's users and publish it; False when the backfill has not come far, None when it is no
        longer wanted.
        """
        measured = self._policy.measured
        tally = Tally(measured, mark[1])
        cursor, at_ms = b"", self._clock_ms()
        await self._engine.settled(partition)
        while True:
            await self._rest(partition)
            store = self._engine.table.stores.get(partition)
            if store is None or not self._current(partition, mark):
                return None
            with self._pace:
                page = store.page(cursor, PAGE_ROWS)
                astray = list(self._read(page, tally))
            if astray:
                with self._pace:
                    if await self._engine.adjust(partition, astray) is None:
                        return None
            if len(page) < PAGE_ROWS:
                break
            cursor = page[-1][0]
        if tally.unreached > UNREACHED_MAX * tally.rows:
            return False
        await self._publish([counted(one, tally.sketches[one.text], partition, at_ms) for one in measured])
        return True

    def _read(self, page: Sequence[tuple[bytes, bytes]], tally: Tally) -> Iterator[bytes]:
        """Count the users of a page; gives those whose rows must follow."""
        now_ms = self._clock_ms()
        for key, value in page:
            if is_mark(key):
                continue
            if (profile := decode_row(value)) is None:
                continue
            user = key.decode()
            try:
                astray = tally.put(profile, now_ms, user) and self._policy.astray(profile, user, now_ms)
            except BadRow:  # some of it is none: who reads it next has another row take its place
                continue
            if astray:
                yield key

    async def _rest(self, partition: int) -> None:
        """Between two pages; a long one while events wait, but it goes on: thresholds must not stand still for long."""
        await self._pace.rest()
        if self._engine.lag().get((self._engine.source, partition), 0) > LAG_MAX:
            await asyncio.sleep(_REST_FOR_LAG_S)

    # -- thresholds

    async def _decide(self) -> None:
        """Publish the thresholds that must change: of a number at most once an interval, unless one is missing."""
        board, now_s = self._feed.board, asyncio.get_running_loop().time()
        seen = (board.counts, self._policy.policy_id)
        if seen == self._seen and now_s - self._decided_s < self._interval_s:
            return
        self._seen, self._decided_s = seen, now_s
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
