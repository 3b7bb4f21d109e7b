"""Dead letters: what was refused and why, and giving them back to the topic that they came from.

A replay is marked before it happens, by a record on `dead-letters` that names the letter and says `REPLAYED`. So a
letter is replayed once however often it is asked for, unless somebody insists; one that dies in between stays undone.
The replayed record says in a header which letter it was.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer

from app.demo.reader import TopicReader
from app.stream.started import started
from schemas.dead_letters import DeadLetter, dead_letter_headers, read_dead_letter
from schemas.erasures import LEDGER, PROFILE, Subjects, decode_receipt
from schemas.topics import DEAD_LETTERS, DECISIONS, ERASURES, EVENTS

REPLAYED: Final = "replayed"
"""The reason of a record that marks a letter as replayed: it refuses nothing."""
REPLAY_HEADER: Final = "nudge_replay_of"
LETTERS_MAX: Final = 10_000
CONTENTS_BYTES_MAX: Final = 64 << 20
_READ_S_MAX: Final = 300.0
_REPLAYABLE: Final = {EVENTS: PROFILE, DECISIONS: LEDGER}
"""Topics that letters are given back to, and which receipt bars what an erased user had there."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter and where it stands; `key` and `value` are the refused record's."""

    place: str
    letter: DeadLetter
    key: bytes | None
    value: bytes | None
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; an empty condition is met by every letter. `since_ms` is wall-clock time."""

    places: Collection[str] = ()
    reasons: Collection[str] = ()
    topics: Collection[str] = ()
    since_ms: int = 0

    def meets(self, found: Letter) -> bool:
        """Whether the letter meets all conditions."""
        letter = found.letter
        return (
            (not self.places or found.place in self.places)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.topics or letter.topic in self.topics)
            and letter.at_ms >= self.since_ms
        )


class Letters:
    """What the topic holds of the letters that are meant, in a bounded amount of memory.

    Parameters
    ----------
    contents
        Keep keys and values, of the oldest letters first; without, the newest letters are kept.
    limit
        How many letters are kept; `tally` counts all.
    """

    def __init__(self, meant: Filter, *, contents: bool, limit: int = LETTERS_MAX) -> None:
        self._meant = meant
        self._contents = contents
        self._room = CONTENTS_BYTES_MAX
        self._limit = limit
        self.kept: deque[Letter] = deque(maxlen=None if contents else limit)
        self.tally: Counter[tuple[str, str]] = Counter()
        """How many are meant, by topic and reason."""
        self.replayed: dict[str, int] = {}
        """When a letter was replayed (wall-clock ms), by its place."""
        self.unreadable = 0

    def add(self, record: Any) -> None:
        """Take in one record of the topic."""
        headers = list(record.headers)
        names = dict(headers)
        try:
            letter = read_dead_letter(headers)
        except (KeyError, ValueError):
            self.unreadable += 1
            return
        if letter.reason == REPLAYED:
            self.replayed[(record.value or b"").decode(errors="replace")] = letter.at_ms
            return
        found = Letter(f"{record.partition}-{record.offset}", letter, record.key, record.value, "nudge_bytes" in names)
        if not self._meant.meets(found):
            return
        self.tally[letter.topic, letter.reason] += 1
        if not self._contents:
            self.kept.append(replace(found, key=None, value=None))
        elif len(self.kept) < self._limit and self._room > 0:
            self.kept.append(found)
            self._room -= len(found.key or b"") + len(found.value or b"")

    @property
    def left_out(self) -> int:
        """How many are meant and were not kept."""
        return self.tally.total() - len(self.kept)


async def read_letters(client_settings: Mapping[str, Any], letters: Letters) -> None:
    """Everything that the dead-letter topic holds now. Raises `aiokafka.errors.KafkaError`, or `TimeoutError`."""
    await _read(client_settings, DEAD_LETTERS, letters.add)


class Erased:
    """Who was erased, and at which offset: what they had before is not given back to anybody."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
        self._below: dict[tuple[str, str], int] = {}

    def add(self, value: bytes | None) -> None:
        """Take in one record of the `erasures` topic."""
        try:
            receipt = decode_receipt(value or b"")
        except msgspec.MsgspecError:
            return
        self._below[receipt.subject, receipt.part] = receipt.offset

    def bars(self, found: Letter) -> bool:
        """Whether the letter's record is of a user who was erased after it was written."""
        part = _REPLAYABLE.get(found.letter.topic)
        if part is None or not found.key:
            return False
        return found.letter.offset < self._below.get((self._subjects.of(found.key).hex(), part), -1)


async def read_erased(client_settings: Mapping[str, Any], subjects: Subjects) -> Erased:
    """Everything that the `erasures` topic holds now. Raises `aiokafka.errors.KafkaError`."""
    erased = Erased(subjects)
    await _read(client_settings, ERASURES, lambda record: erased.add(record.value))
    return erased


def refusal(found: Letter, letters: Letters, erased: Erased, *, again: bool) -> str:
    """Why a letter cannot be replayed; empty when it can."""
    if found.letter.topic not in _REPLAYABLE:
        return f"records of topic {found.letter.topic!r} are not given back"
    if found.is_cut:
        return "only a part of the record was kept; the whole stands where the headers say"
    if not again and found.place in letters.replayed:
        return "replayed before; --again insists"
    if erased.bars(found):
        return "its user has been erased since"
    return ""


async def replay(client_settings: Mapping[str, Any], chosen: Sequence[Letter], *, now_ms: int, idempotent: bool) -> int:
    """Give letters back to the partitions that they came from, in order; returns how many.

    Each is marked first, so that a replay that dies in between is not repeated: a letter without an effect can be
    asked for again, one with two effects cannot be undone.

    Raises
    ------
    aiokafka.errors.KafkaError
        When the broker refuses; those before are replayed, the one it happened at is marked.
    """
    producer = AIOKafkaProducer(acks="all", enable_idempotence=idempotent, **client_settings)
    done = 0
    async with started(producer):
        for found in chosen:
            letter = found.letter
            mark = msgspec.structs.replace(letter, reason=REPLAYED, detail="", at_ms=now_ms)
            await producer.send_and_wait(DEAD_LETTERS, found.place.encode(), headers=dead_letter_headers(mark))
            await producer.send_and_wait(
                letter.topic,
                found.value,
                key=found.key,
                partition=letter.partition,
                headers=[(REPLAY_HEADER, f"{DEAD_LETTERS}/{found.place}".encode())],
            )
            done += 1
    return done


async def _read(client_settings: Mapping[str, Any], topic: str, take: Callable[[Any], None]) -> None:
    security = dict(client_settings)
    bootstrap = security.pop("bootstrap_servers")
    async with asyncio.timeout(_READ_S_MAX), TopicReader(bootstrap, [topic], **security) as reader:
        while True:
            records = await reader.read(wait_ms=200)
            for record in records:
                take(record)
            if not records and await reader.at_end():
                return
