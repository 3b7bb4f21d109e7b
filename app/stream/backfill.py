"""Brings every row to the policy in force without waiting for the user's next event.

Each partition is swept once for a policy version, in the order of keys, a few rows at a time. A row says itself which
version it was last judged by and which windows it lacks, so a sweep that is cut off begins anew and changes nothing
twice. Windows that no earlier version asked for are folded from `events`, read again beside the consumer group: for
at most `ROWS_MAX` users at a time, so that memory is bounded; a partition with more is read several times.

A row is given the windows of its history up to some offset only if it has taken in no event from there on; so history
and present meet exactly. One that has is tried again when the reader has caught up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
from aiokafka.errors import KafkaError

from app.core.history import Windows
from app.core.profile import Profile
from app.core.row_heads import BadRow
from app.stream.background import Background
from app.stream.engine import Engine
from app.stream.history import HistoryReader
from app.stream.pace import Pace
from app.stream.unreadable import decode_row

log = structlog.get_logger(__name__)

ROWS_MAX: Final = 20_000
PAGE_ROWS: Final = 64
LAG_MAX: Final = 2_000
ROUNDS_MAX: Final = 20
_LOOK_S: Final = 0.5
_WAIT_FOR_LAG_S: Final = 0.25


class PolicyRows(Protocol):
    """What the sweep asks about the policy in force, as `app.core.processor.Processor` answers it."""

    @property
    def policy_id(self) -> int:
        """Its id."""

    def wants(self, profile: Profile) -> Sequence[int] | None:
        """None for a row that needs nothing, else the windows that it lacks."""


class Fold(Protocol):
    """Windows of some users in the making, as `app.core.history_fold.HistoryFold` makes them."""

    def add(self, records: Sequence[Any], now_ms: int) -> None:
        """Fold records that arrived at about `now_ms`."""

    def read_to(self, next_offset: int) -> Windows:
        """What has been folded."""


class BackfillObserver(Protocol):
    """Where the sweep reports to. What became of rows is among the engine's effects."""

    def history_read(self, records: int) -> None:
        """Records of `events` were read again."""

    def history_begins(self, partition: int, offset: int, at_ms: int, features: Collection[int]) -> None:
        """Windows of a partition were folded from `offset` on, whose record arrived at `at_ms`."""


class Backfill(Background):
    """Sweeps the partitions of an engine for as long as it runs.

    Parameters
    ----------
    fold
        ``fold(features, keys)`` begins the windows of some users.
    at_ms
        Wall time to event time.
    share
        Of the time, at most, that it works; it pauses altogether while a partition lags by `LAG_MAX` records.
    reader
        Reads a partition of the engine's source again; from Kafka when not given.
    """

    task_name = "backfill"

    def __init__(
        self,
        engine: Engine,
        policy: PolicyRows,
        fold: Callable[[frozenset[int], Collection[bytes]], Fold],
        observer: BackfillObserver,
        at_ms: Callable[[int], int],
        *,
        share: float,
        reader: Callable[[int], HistoryReader] | None = None,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._fold = fold
        self._observer = observer
        self._at_ms = at_ms
        self._pace = Pace(share)
        self._reader = reader or self._read_kafka
        self._done: dict[int, tuple[object, int]] = {}

    def _read_kafka(self, partition: int) -> HistoryReader:
        return HistoryReader(self._engine.app.client_settings, self._engine.source, partition)

    def remaining(self) -> int:
        """How many of our partitions are not yet as the policy in force has them."""
        return len(self._waiting())

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except KafkaError as exc:
                log.warning("backfill_retry", error=str(exc))
            except Exception as exc:
                self._engine.app.fatal("the backfill failed", exc)
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        waiting = self._waiting()
        if waiting and self._engine.app.batches.flow_active:
            partition, mark = next(iter(waiting.items()))
            if await _Sweep(self, partition, mark).run():
                self._done[partition] = mark

    def _waiting(self) -> dict[int, tuple[object, int]]:
        marks = {partition: (tenure, self._policy.policy_id) for partition, tenure in self._engine.tenures().items()}
        self._done = {partition: mark for partition, mark in self._done.items() if marks.get(partition) == mark}
        return {partition: mark for partition, mark in marks.items() if partition not in self._done}


class _Sweep:
    """One partition, one policy version."""

    def __init__(self, backfill: Backfill, partition: int, mark: tuple[object, int]) -> None:
        self._b = backfill
        self._engine = backfill._engine
        self._partition = partition
        self._mark = mark

    def _current(self) -> bool:
        """Whether the partition is still ours and the version still in force."""
        tenure, policy_id = self._mark
        return self._engine.tenures().get(self._partition) is tenure and self._b._policy.policy_id == policy_id

    async def run(self) -> bool:
        """True when every row is as the policy in force has it."""
        await self._engine.settled(self._partition)  # rows that are new to the store were judged by the version before
        cursor, whole = b"", True
        lacking: dict[bytes, Sequence[int]] = {}
        while True:
            await self._rest()
            store = self._engine.table.stores.get(self._partition)
            if store is None or not self._current():  # a store is closed before the engine gives its partition up
                return False
            with self._b._pace:
                page = store.page(cursor, PAGE_ROWS)
                wants = {key: self._wants(value) for key, value in page}
            plain = [key for key, features in wants.items() if features is not None and not features]
            lacking |= {key: features for key, features in wants.items() if features}
            if plain and not await self._bring(plain, Windows()):
                return False
            if len(lacking) >= ROWS_MAX or (lacking and len(page) < PAGE_ROWS):
                whole &= await self._rebuild(lacking)
                lacking = {}
            if len(page) < PAGE_ROWS:
                return whole and self._current()
            cursor = page[-1][0]

    def _wants(self, value: bytes) -> Sequence[int] | None:
        """As of a policy. What is no row is brought to it as any other, which has a row take its place."""
        try:
            row = decode_row(value)
            return [] if row is None else self._b._policy.wants(row)
        except BadRow:
            return []

    async def _rest(self) -> None:
        await self._b._pace.rest()
        source = (self._engine.source, self._partition)
        while self._engine.lag().get(source, 0) > LAG_MAX and self._current():  # noqa: ASYNC110 - nobody would tell
            await asyncio.sleep(_WAIT_FOR_LAG_S)

    async def _bring(self, keys: list[bytes], windows: Windows) -> dict[str, int]:
        """Bring rows to the policy; says what became of how many, or nothing when the partition is being given up."""
        with self._b._pace:
            effects = await self._engine.sweep(self._partition, keys, windows)
        if effects is None:
            return {}
        return {labels[1]: number for labels, number in effects.counts.items() if labels[0] == "backfill"}

    async def _rebuild(self, lacking: Mapping[bytes, Sequence[int]]) -> bool:
        """Fold the history of these users, and give it to their rows; False when some are left."""
        covers = frozenset(feature for features in lacking.values() for feature in features)
        fold = self._b._fold(covers, lacking.keys())
        left = list(lacking)
        async with self._b._reader(self._partition) as reader:
            for _round in range(ROUNDS_MAX):
                if not await self._read(reader, fold):
                    return False
                windows = fold.read_to(reader.next_offset)
                postponed = []
                for start in range(0, len(left), PAGE_ROWS):
                    keys = left[start : start + PAGE_ROWS]
                    became = await self._bring(keys, windows)
                    if not became:
                        return False
                    if became.get("postponed"):
                        postponed += keys
                    await self._rest()
                left = postponed
                if not left:
                    break
            offset, at_ms = reader.first or (reader.next_offset, time.time_ns() // 1_000_000)
            self._b._observer.history_begins(self._partition, offset, self._b._at_ms(at_ms), covers)
        return not left

    async def _read(self, reader: HistoryReader, fold: Fold) -> bool:
        """Fold everything that the engine has folded; False when it is no longer wanted."""
        if not self._current():
            return False
        async for records in reader.read_to(self._engine.position(self._partition)):
            with self._b._pace:
                for group in _by_second(records):
                    fold.add(group, self._b._at_ms(group[-1].timestamp))
            self._b._observer.history_read(len(records))
            await self._rest()
            if not self._current():
                return False
        return True


def _by_second(records: Sequence[Any]) -> list[list[Any]]:
    """Neighbours that arrived in the same second: near enough to have been processed at one time."""
    groups: list[list[Any]] = []
    for record in records:
        if groups and groups[-1][-1].timestamp // 1000 == record.timestamp // 1000:
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups
