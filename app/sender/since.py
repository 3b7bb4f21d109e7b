"""From where `events` must be read at a start, so that no opt-out is missed and not everything is read again.

What a sender may still send stands in `decisions` at its committed offset or behind. An opt-out matters to it only if
the worker had not folded it when it decided. So the sender notes, of each partition, a *mark*: a record of `events`
that the workers had committed already when `decisions` ended at a certain offset. Whatever was published from there on
was decided later than that record, by rows that know every opt-out before it: a worker commits an offset after the
decisions of what stands before it are acknowledged. Once the sender's own commit has come to that end, nothing that is
left to send needs what stands before the mark, and the commit carries it.

The mark is Kafka's metadata of the commit, so it is exactly as old as the offset that it belongs to, and it is lost
with it and with nothing else: an empty disk has it, an offset that was set by hand has none. In doubt everything is
read: there is no mark, the workers have gone back before it or are another group, or the record there is another one
(a topic made anew or mirrored, an end that a broker lost).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError

from app.stream.background import Background
from app.stream.commits import decode_note, digest, look, read_commits
from schemas.topics import DECISIONS, EVENTS

log = structlog.get_logger(__name__)

LOOK_S: Final = 5.0
"""Between two looks at what the workers have committed. What a start reads is what came since the last but one."""
_TIMEOUT_S: Final = 30.0


class Mark(msgspec.Struct, frozen=True):
    """A record of a partition of `events`: no opt-out before it is needed any more.

    Parameters
    ----------
    group
        The workers who have committed it.
    offset, digest
        Where it stands, and which it is.
    """

    group: str
    offset: int
    digest: str


class _Ripe(NamedTuple):
    """A mark, and the offset of `decisions` from which on it holds."""

    decisions: int
    mark: Mark


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Mark).decode


class Marks:
    """The marks of our partitions: which one a commit of `decisions` may carry. Pure.

    A mark is a candidate until the workers have committed it, and then holds from where `decisions` ends. Two are kept
    of a partition: the one that commits carry, and the one that they have not come to yet.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._candidates: dict[int, Mark] = {}
        self._ripe: dict[int, tuple[_Ripe, ...]] = {}

    def propose(self, partition: int, offset: int, digest: str) -> None:
        """A record that has been read; one that was proposed before it stays until it is taken."""
        self._candidates.setdefault(partition, Mark(self._group, offset, digest))

    def folded(self, committed: Mapping[int, int]) -> dict[int, Mark]:
        """Of the candidates those that the workers have committed: where does `decisions` end now?

        Where they have gone back before a mark they publish again what is older than it: then it holds no more.
        """
        self._ripe = {p: ripe for p, ripe in self._ripe.items() if ripe[-1].mark.offset < committed.get(p, 0)}
        return {p: mark for p, mark in self._candidates.items() if mark.offset < committed.get(p, 0)}

    def ripen(self, partition: int, end: int, done: int) -> None:
        """The candidate holds from `end` of `decisions`, which was asked for later than what the workers committed.

        Parameters
        ----------
        done
            The sender's own committed offset.
        """
        ripe = self._ripe.get(partition, ())
        while len(ripe) > 1 and ripe[1].decisions <= done:
            ripe = ripe[1:]
        if len(ripe) < 2:
            ripe = (*ripe, _Ripe(end, self._candidates.pop(partition)))
        self._ripe[partition] = ripe

    def keep(self, partitions: Iterable[int]) -> None:
        """Forget all but these."""
        kept = set(partitions)
        self._candidates = {p: mark for p, mark in self._candidates.items() if p in kept}
        self._ripe = {p: ripe for p, ripe in self._ripe.items() if p in kept}

    def note(self, partition: int, offset: int) -> str:
        """What goes with a commit of `offset`; nothing where nothing holds. Called from any thread."""
        fit = [ripe.mark for ripe in self._ripe.get(partition, ()) if ripe.decisions <= offset]
        return _encode(fit[-1]).decode() if fit else ""


def read_note(note: str, group: str) -> Mark | None:
    """The mark that a commit carried; None where it carried none, or one of another group's workers."""
    try:
        mark = _decode(note)
    except msgspec.MsgspecError:
        return None
    return mark if mark.group == group else None


class Since(Background):
    """Keeps the marks up to date while the sender runs, and says at a start where to begin.

    Parameters
    ----------
    workers, senders
        Their consumer groups.
    newest
        The last record of each partition of `events` that has been read.
    done
        The sender's committed offsets of `decisions`, of its own partitions.
    """

    task_name = "since"

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        workers: str,
        senders: str,
        newest: Callable[[], Mapping[int, Any]],
        done: Callable[[], Mapping[int, int]],
    ) -> None:
        self._settings = dict(settings)
        self._workers = workers
        self._senders = senders
        self._newest = newest
        self._done = done
        self._marks = Marks(workers)

    def note(self, topic: str, partition: int, offset: int) -> str:
        """What goes with a commit. Called from any thread."""
        return self._marks.note(partition, offset) if topic == DECISIONS else ""

    async def starts(self, partitions: Collection[int]) -> dict[int, int]:
        """Where to begin with `events`; a partition that is not among them is to be read whole.

        Raises
        ------
        aiokafka.errors.KafkaError, TimeoutError
            When nobody answers. Where the answer is that we may not know, everything is read.
        """
        async with asyncio.timeout(_TIMEOUT_S):
            try:
                folded = await read_commits(self._settings, self._workers, EVENTS, partitions)
                ours = await read_commits(self._settings, self._senders, DECISIONS, partitions)
            except GroupAuthorizationFailedError as exc:
                log.warning("commits_not_known", error=str(exc), events="read from their beginning")
                return {}
            found: dict[int, int] = {}
            notes = {p: decode_note(note) for p, (_, note) in ours.items()}
            last = {p: max(0, offset - 1) for p, (offset, _) in ours.items() if p in folded}
            for partition, (record, end) in (await look(self._settings, DECISIONS, last)).items():
                told = notes[partition].last
                if ours[partition][0] == end and (not told or (record is not None and digest(record) == told)):
                    found[partition] = folded[partition][0]  # nothing waits; the workers had committed that before
            marks = {p: mark for p, note in notes.items() if (mark := read_note(note.app, self._workers)) is not None}
            marks = {p: mark for p, mark in marks.items() if p in folded and folded[p][0] > mark.offset}
            at = await look(self._settings, EVENTS, {p: mark.offset for p, mark in marks.items()})
        for partition, mark in marks.items():
            record = at[partition].record
            if record is None or record.offset != mark.offset or digest(record) != mark.digest:
                log.warning("events_read_whole", partition=partition, why="the record that was marked is not there")
                found.pop(partition, None)
            else:
                found[partition] = max(mark.offset, found.get(partition, 0))
        log.info("opt_outs", partitions=len(partitions), read_whole=len(set(partitions) - found.keys()))
        return found

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self.refresh()
            except (KafkaError, OSError, TimeoutError) as exc:
                log.info("mark_not_renewed", error=repr(exc))

    async def refresh(self) -> None:
        """Take a look: which candidates have the workers committed, and where does `decisions` end since then?"""
        done = self._done()
        self._marks.keep(done)
        for partition, record in self._newest().items():
            if partition in done:
                self._marks.propose(partition, record.offset, digest(record))
        committed = await read_commits(self._settings, self._workers, EVENTS, done)
        folded = self._marks.folded({p: offset for p, (offset, _) in committed.items()})
        for partition, (_, end) in (await look(self._settings, DECISIONS, {p: done[p] for p in folded})).items():
            self._marks.ripen(partition, end, done[partition])
