"""Forgetting a user in the sender: nothing decided before is sent any more, and the ledger keeps nothing of it.

The worker passes a request on in `decisions`, in the order of the user's decisions, so the offset of that record says
which of them are meant. An attempt that is under way is let end; what waits gives up at its next look. Then the user's
ledger entries are deleted, and a mark keeps a replay of the topic from sending what the ledger no longer remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from app.sender.jobs import Job, Record
from schemas.decisions import ERASED, ERASED_TYPE, decode_decision
from schemas.erasures import LEDGER, ErasureReceipt, Subjects
from tables.ledger import LedgerEntry, State, encode_entry, id_of_index, index_prefix, mark_key

_ERASED: Final = ERASED_TYPE.encode()
CHUNK: Final = 1_000


@dataclass(frozen=True, slots=True)
class Erasure:
    """A request as it stands in `decisions`: no decision of `user` below `offset` may be sent."""

    user: str
    request: str
    offset: int


def read_erasures(records: Sequence[Record]) -> list[Erasure]:
    """The requests among the records, the last of each user."""
    found: dict[str, Erasure] = {}
    for record in records:
        if dict(record.headers).get("ce_type") != _ERASED:
            continue
        try:
            decision = decode_decision(record.value or b"")
        except msgspec.MsgspecError:
            continue
        if decision.reason == ERASED and record.key == decision.user.encode():
            found[decision.user] = Erasure(decision.user, decision.trigger, record.offset)
    return list(found.values())


class Erasures:
    """Requests that are being met, and the decisions that are being worked on."""

    def __init__(self) -> None:
        self._requests: dict[str, Erasure] = {}
        self._working: dict[str, list[Job]] = {}
        self._left = asyncio.Condition()

    def begin(self, erasure: Erasure) -> None:
        """From now on the decisions that it means are barred."""
        self._requests[erasure.user] = erasure

    def bars(self, job: Job) -> bool:
        """Whether the job must end without a trace."""
        erasure = self._requests.get(job.decision.user)
        return erasure is not None and job.offset < erasure.offset

    def enter(self, jobs: Iterable[Job]) -> None:
        """These are being worked on."""
        for job in jobs:
            self._working.setdefault(job.decision.user, []).append(job)

    async def leave(self, jobs: Iterable[Job]) -> None:
        """These have ended, and what they had to write is written. One that has left already may leave again."""
        for job in jobs:
            others = [other for other in self._working.get(job.decision.user, ()) if other is not job]
            if others:
                self._working[job.decision.user] = others
            else:
                self._working.pop(job.decision.user, None)
        if self._requests:
            async with self._left:
                self._left.notify_all()

    async def idle(self, erasure: Erasure) -> None:
        """Wait until nobody works on a decision that it means."""

        def nobody() -> bool:
            return all(job.offset > erasure.offset for job in self._working.get(erasure.user, ()))

        async with self._left:
            await self._left.wait_for(nobody)

    def end(self, erasure: Erasure) -> None:
        """The mark is in the ledger: it bars from now on."""
        if self._requests.get(erasure.user) is erasure:
            del self._requests[erasure.user]


def rows_to_erase(
    erasure: Erasure, subjects: Subjects, index: Sequence[bytes], wall_ms: int
) -> list[list[tuple[bytes, bytes | None]]]:
    """The writes that forget the user, the mark in the first.

    Parameters
    ----------
    index
        Keys of the user's index rows.
    """
    subject = subjects.of(erasure.user.encode())
    mark = LedgerEntry(State.FAILED, erasure.offset, wall_ms, reason=ERASED)
    prefix = index_prefix(subject)
    rows: list[tuple[bytes, bytes | None]] = [(mark_key(subject), encode_entry(mark))]
    for key in index:
        rows += [(id_of_index(key, prefix), None), (key, None)]
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def ledger_receipt(
    erasure: Erasure, subjects: Subjects, *, partition: int, entries: int, wall_ms: int
) -> ErasureReceipt:
    """What the ledger had of the user."""
    return ErasureReceipt(
        subject=subjects.of(erasure.user.encode()).hex(),
        request=erasure.request,
        part=LEDGER,
        at_ms=wall_ms,
        partition=partition,
        offset=erasure.offset,
        erased={"ledger_entries": entries} if entries else {},
    )
