"""Delivery: a batch of decisions becomes sends, a record of them, and receipts.

The order is what makes it safe to be killed at any point: an id is reserved in the ledger just before the provider is
asked, its final state is recorded before its receipt is produced, and the batch is completed after the receipts are
acknowledged. What a replay does then follows from the ledger alone (`tables.ledger.next_step`).

The shell only moves bytes: what may be sent and what an answer means is decided in `app.sender.rules`; attempts are
the courier's. A cancelled `deliver` leaves reservations behind, exactly as a killed process does; one that is told to
stop takes them back, and the next sender begins where nothing has happened.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.clock import Clock
from app.sender.claims import Claims
from app.sender.courier import Courier, CourierSettings
from app.sender.erasure import Erasure, Erasures, ledger_receipt, read_erasures, rows_to_erase
from app.sender.jobs import Job, read_jobs, trace_headers
from app.sender.providers.base import Provider
from app.sender.receipts import receipt, removals
from app.sender.recorder import NoRecorder, Recorder
from app.sender.reserver import Reserver
from app.sender.rules import UNKNOWN, Conclusion, Verdict, give_up, judge
from schemas.dead_letters import cut, dead_letter_headers
from schemas.decisions import Headers
from schemas.erasures import Subjects, encode_receipt
from schemas.events import encode_event
from schemas.topics import DEAD_LETTERS, ERASURES, EVENTS
from tables.ledger import (
    RETENTION_MS,
    LedgerEntry,
    State,
    Step,
    decode_entry,
    encode_entry,
    index_prefix,
    index_row,
    mark_key,
    next_step,
    settle,
)

NO_PROVIDER = "none"
RUNNERS_MAX = 256
"""Messages of one batch that wait for their turn at a time: a bound on memory, not on concurrency."""

Produce = Callable[[str, int | None, bytes | None, bytes | None, Headers], Awaitable[object]]
"""Topic, partition (None: by key), key, value, headers; returns when the broker has acknowledged it."""
Suppressed = Callable[[str, str], bool | None]
"""User and category to whether they have opted out; None when that cannot be told."""


class Batch(Protocol):
    """What is used of `app.stream.batch.RecordBatch`."""

    topic: str
    partition: int
    records: Sequence[Any]

    def complete(self) -> None:
        """Everything that follows from this batch is durable."""
        ...

    def give_back(self) -> None:
        """It is left to whoever reads the partition next."""
        ...


class Table(Protocol):
    """What is used of the ledger's row table."""

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of `keys`."""
        ...

    def keys_with_prefix(self, partition: int, prefix: bytes) -> list[bytes]:
        """Keys of the rows that begin with it."""
        ...

    async def write(self, partition: int, rows: list[tuple[bytes, bytes | None]]) -> None:
        """All or nothing; returns when it is durable."""
        ...


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """Bounds and waits, in wall-clock time.

    Parameters
    ----------
    settle_s
        How long a finished send may wait for its neighbours before its final state is recorded: what a kill would
        turn into `unknown`.
    """

    courier: CourierSettings = field(default_factory=CourierSettings)
    settle_s: float = 0.5
    retention_ms: int = RETENTION_MS


class Deliverer:
    """Delivers batches; calls may overlap, also for one partition.

    Parameters
    ----------
    providers
        By name; `default` names the one for devices whose own is not among them.
    suppressed
        Asked immediately before every attempt.
    subjects
        Keyed hashes by which a user's entries are found when the user is erased.

    Raises
    ------
    BadProvider
        If `default` is not among `providers`.
    """

    def __init__(
        self,
        *,
        table: Table,
        produce: Produce,
        providers: Mapping[str, Provider],
        default: str,
        clock: Clock,
        suppressed: Suppressed,
        subjects: Subjects,
        settings: DeliverySettings,
        recorder: Recorder | None = None,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._table = table
        self._produce = produce
        self._clock = clock
        self._suppressed = suppressed
        self._subjects = subjects
        self._erasures = Erasures()
        self._settings = settings
        self._recorder: Recorder = recorder or NoRecorder()
        self._wall_s = wall_s
        self._claims = Claims()
        self._courier = Courier(
            providers,
            default,
            self._judge,
            settings.courier,
            self._recorder,
            sleep=sleep,
            monotonic_s=monotonic_s,
        )

    async def deliver(self, batch: Batch) -> None:
        """Everything that the batch asks for, then `batch.complete()`; or `batch.give_back()` when told to stop.

        Raises
        ------
        Exception
            Whatever `table` or `produce` raise: the batch is not completed, and a replay of it is safe.
        """
        jobs, refused = read_jobs(batch.topic, batch.partition, batch.records, self._clock.now_ms())
        for erasure in (erasures := read_erasures(batch.records)):
            self._erasures.begin(erasure)
        jobs = [job for job in jobs if not self._erasures.bars(job)]
        self._erasures.enter(jobs)
        try:
            for erasure in erasures:
                await self._erase(batch.partition, erasure)
            async with self._claims.hold([job.key for job in jobs]):
                left = await self._resolve(batch.partition, jobs)
        finally:
            await self._erasures.leave(jobs)
        if left:
            self._recorder.given_back(left)
            batch.give_back()
            return
        for record, letter in refused:
            headers = dead_letter_headers(letter, record.value)
            await self._produce(DEAD_LETTERS, None, cut(record.key), cut(record.value), headers)
            self._recorder.dead_lettered(letter.reason)
        batch.complete()

    async def _erase(self, partition: int, erasure: Erasure) -> None:
        """Forget the user; returns when the receipt is acknowledged."""
        await self._erasures.idle(erasure)
        index = self._table.keys_with_prefix(partition, index_prefix(self._subject_of(erasure.user)))
        for rows in rows_to_erase(erasure, self._subjects, index, self._wall_ms()):
            await self._table.write(partition, rows)
        found = ledger_receipt(
            erasure, self._subjects, partition=partition, entries=len(index), wall_ms=self._wall_ms()
        )
        await self._produce(ERASURES, None, found.key.encode(), encode_receipt(found), [])
        self._erasures.end(erasure)

    def _subject_of(self, user: str) -> bytes:
        return self._subjects.of(user.encode())

    def stop(self) -> None:
        """Begin no attempt any more, until `resume`: batches under way end soon, complete or given back."""
        self._courier.stop()

    def resume(self) -> None:
        """The inverse of `stop`."""
        self._courier.resume()

    async def close(self) -> None:
        """Close the providers."""
        await self._courier.close()

    async def _resolve(self, partition: int, jobs: Sequence[Job]) -> int:
        """How many jobs are left undone: none, unless told to stop."""
        todo, settled = await self._look_up(partition, jobs)
        while todo or settled:
            ready: list[Job] = []
            held: list[Job] = []
            for job in todo:
                verdict = self._judge(job)
                if verdict is Verdict.HOLD or (verdict is Verdict.SEND and self._courier.stopping):
                    held.append(job)
                elif verdict is Verdict.SEND:
                    ready.append(job)
                else:
                    settled.append(self._finish(job, give_up(job, verdict.value)))
            await self._record(partition, settled)
            left = await self._send_all(partition, ready)
            if held:
                self._recorder.held(len(held))
            if left or (held and not await self._courier.pause(self._settings.courier.hold_poll_s)):
                return left + len(held)
            todo, settled = held, []
        return 0

    async def _look_up(self, partition: int, jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
        """Jobs to send and jobs whose end is clear already; receipts of those that had ended are produced again."""
        todo: list[Job] = []
        settled: list[Job] = []
        repeat: list[Job] = []
        skipped = 0
        jobs = await self._not_erased(partition, jobs)
        for job, raw in zip(jobs, self._table.get_many(partition, [job.key for job in jobs]), strict=True):
            job.entry = decode_entry(raw) if raw else None
            step = next_step(job.entry, transactional=job.decision.transactional, offset=job.offset)
            job.maybe_sent = step in (Step.RESEND, Step.GIVE_UP)
            if step is Step.GIVE_UP:
                settled.append(self._finish(job, give_up(job, UNKNOWN)))
            elif step is Step.REPEAT:
                repeat.append(job)
            elif step is Step.SKIP:
                skipped += 1
            elif self._outlived(job):
                settled.append(self._finish(job, give_up(job, Verdict.EXPIRED.value)))
            else:
                todo.append(job)
        if repeat or skipped:
            self._recorder.repeated(len(repeat) + skipped)
        await self._produce_receipts(partition, repeat)
        return todo, settled

    async def _not_erased(self, partition: int, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that no mark bars: what an erased user's ledger entries were deleted of is not sent again."""
        keys = [mark_key(self._subject_of(job.decision.user)) for job in jobs]
        marks = self._table.get_many(partition, keys)
        barred = [job for job, raw in zip(jobs, marks, strict=True) if raw and job.offset < decode_entry(raw).offset]
        await self._erasures.leave(barred)
        return [job for job in jobs if job not in barred] if barred else list(jobs)

    def _outlived(self, job: Job) -> bool:
        """Whether the ledger may have forgotten it: then only a message that may be repeated is sent."""
        return not job.decision.transactional and self._wall_ms() - job.written_ms > self._settings.retention_ms

    async def _send_all(self, partition: int, jobs: Sequence[Job]) -> int:
        """Urgent ones first; returns how many were given back."""
        queue = deque(sorted(jobs, key=lambda job: not job.decision.transactional))
        ended: list[Job] = []
        reserver = Reserver(lambda group: self._reserve(partition, group))
        number = min(len(queue), RUNNERS_MAX)
        runners = {asyncio.create_task(self._run(queue, reserver, ended)) for _ in range(number)}
        left = 0
        try:
            while runners:
                done, runners = await asyncio.wait(runners, timeout=self._settings.settle_s)
                for runner in done:
                    runner.result()
                found = ended[:]
                ended.clear()
                await self._record(partition, found)
                left += sum(not _final(job) for job in found)
        finally:
            for runner in runners:
                runner.cancel()
            await asyncio.gather(*runners, return_exceptions=True)
            await reserver.close()
        return left

    async def _run(self, queue: deque[Job], reserver: Reserver, ended: list[Job]) -> None:
        while queue:
            job = queue.popleft()
            end = await self._courier.take(job, reserver.reserve)
            if end is not None:
                self._finish(job, end[0], provider=end[1])
            elif not job.maybe_sent:
                job.entry = None  # the reservation is taken back: the next sender may send it
            ended.append(job)

    def _judge(self, job: Job) -> Verdict:
        if self._erasures.bars(job):
            return Verdict.ERASED
        decision = job.decision
        suppressed = self._suppressed(decision.user, decision.category)
        return judge(decision, now_ms=self._clock.now_ms(), suppressed=suppressed)

    async def _reserve(self, partition: int, jobs: Sequence[Job]) -> None:
        rows: list[tuple[bytes, bytes | None]] = []
        for job in jobs:
            job.entry = LedgerEntry(State.RESERVED, job.offset, self._wall_ms())
            rows += self._rows_of(job)
        await self._table.write(partition, rows)
        for job in jobs:
            job.reserved = True

    def _finish(self, job: Job, end: Conclusion, *, provider: str = "") -> Job:
        final = LedgerEntry(
            state=end.state,
            offset=job.offset,
            at_ms=self._wall_ms(),
            event_ms=self._clock.now_ms(),
            provider=provider,
            reason=end.reason,
            provider_id=end.provider_id,
            attempts=job.attempts,
            gone=job.gone,
        )
        job.entry = settle(job.entry, final)
        early = end.reason in (Verdict.EXPIRED.value, Verdict.OPTED_OUT.value, Verdict.ERASED.value)
        self._recorder.settled(provider or NO_PROVIDER, end.reason if early else end.state.name.lower())
        for _, by, _ in job.gone:
            self._recorder.removed(by)
        return job

    async def _record(self, partition: int, jobs: Sequence[Job]) -> None:
        """Write the entries of those that are settled and take back reservations, then produce the receipts."""
        told = [job for job in jobs if _final(job) and not self._erasures.bars(job)]
        rows = [row for job in jobs for row in self._rows_of(job)]
        if rows:
            await self._table.write(partition, rows)
        await self._produce_receipts(partition, told)
        await self._erasures.leave(jobs)

    def _rows_of(self, job: Job) -> list[tuple[bytes, bytes | None]]:
        """The job's entry and its index row; their deletion where it was taken back or its user was erased."""
        barred = self._erasures.bars(job)
        if job.entry is None and not job.reserved:
            return []
        if job.indexed and not barred and job.entry is not None:
            return [(job.key, encode_entry(job.entry))]
        at_ms = self._wall_ms() if job.entry is None else job.entry.at_ms
        key, value = index_row(self._subject_of(job.decision.user), job.key, at_ms)
        if job.entry is None or barred:
            return [(job.key, None), (key, None)]
        job.indexed = True
        return [(job.key, encode_entry(job.entry)), (key, value)]

    async def _produce_receipts(self, partition: int, jobs: Sequence[Job]) -> None:
        """To the user's partition of `events`, which has the number of the decision's."""
        await asyncio.gather(*(self._produce_receipt(partition, job) for job in jobs))

    async def _produce_receipt(self, partition: int, job: Job) -> None:
        assert job.entry is not None, "a receipt tells what the ledger holds"
        for event in (*removals(job.decision, job.entry), receipt(job.decision, job.entry)):
            await self._produce(EVENTS, partition, job.decision.user.encode(), encode_event(event), trace_headers(job))

    def _wall_ms(self) -> int:
        return int(self._wall_s() * 1_000)


def _final(job: Job) -> bool:
    return job.entry is not None and job.entry.state is not State.RESERVED
