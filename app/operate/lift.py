"""Lifts `events` beyond every offset that rows have seen, after it was made anew or a broker lost its end.

Rows pass events by that stand at or before the last one they have seen. In another log that would be nearly all, for as
long as it takes to grow as long as the old one was. So the offsets that rows have seen are used up, by records that no
reader is given (their transaction is aborted); what stood there already is copied behind them, in its order, and
deleted in front. The workers' group begins behind. Rows stay as they are, no offset is used twice, and no id of a
decision either.

A mirror holds the rows' own events under other offsets: copied, they would be folded again. Where the operator says
that it is one, the last event that a row remembers by its `messageId` says up to where it is folded; only what follows
is copied.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from app.core import owed
from app.core.ids import WORD_BYTES, message_word
from app.core.profile import decode_profile
from app.core.row_heads import BadRow
from app.stream.commits import Commit, read_commits, write_commit
from app.stream.history import HistoryReader
from app.stream.started import started
from app.whole_topic import ends
from schemas.events import Rejected, decode_event
from schemas.topics import EVENTS, PROFILES_CHANGELOG

LOOKS: Final = 64
"""Rows of a partition whose last event is looked for where they say."""
BATCH_BYTES: Final = 512 << 10
OFFSETS_PER_TRANSACTION: Final = 2_000_000
TRANSACTION_S: Final = 600
_NO_USER: Final = b"\xff"


class Lift(msgspec.Struct, frozen=True):
    """What is to be done to a partition.

    Parameters
    ----------
    begin, end
        Of the log as it is.
    seen
        The first offset that no row knows.
    keep
        Up to here the log is the one that rows were folded from.
    known
        After the last event that a row remembers, 0 for none: in a mirror everything before is folded.
    """

    partition: int
    begin: int
    end: int
    seen: int
    keep: int
    known: int = 0

    @property
    def behind(self) -> int:
        """Where workers go on: nothing that they have not folded stands before."""
        return max(self.seen, self.keep)

    @property
    def filler(self) -> int:
        """Offsets to be used up."""
        return max(0, self.seen - self.end)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Lift).decode


def read_note(note: str) -> Lift | None:
    """What an interrupted `lift` was about to do, as the group's commit says it."""
    try:
        return _decode(note)
    except msgspec.MsgspecError:
        return None


Last = tuple[int, bytes]
"""Where a row's last event stands, as the row says; its key."""


class Seen:
    """What the rows of a partition have seen: the offset after it, and the newest last events below `end`."""

    def __init__(self, end: int) -> None:
        self._end = end
        self.next_offset = 0
        self._newest: list[Last] = []
        self._recent: list[tuple[int, bytes, bytes]] = []

    def add(self, key: bytes, raw: bytes) -> None:
        """Take in a row; what is no row is passed by."""
        try:
            row = decode_profile(raw)
        except BadRow:
            return
        marks = [entry.mark for entry in owed.outputs(row, key)]
        self.next_offset = max(self.next_offset, row.offset + 1, *marks)  # the mark of a timer is the next offset
        if row.offset < 0 or key >= _NO_USER:
            return
        _push(self._recent, (row.offset, key, row.recent))
        if row.offset < self._end:
            _push(self._newest, (row.offset, key))

    @property
    def newest(self) -> list[Last]:
        """The newest first."""
        return sorted(self._newest, reverse=True)

    @property
    def recent(self) -> dict[bytes, bytes]:
        """What the rows with the newest events remember of message ids."""
        return {key: recent for _, key, recent in self._recent}


def _push(heap: list[Any], item: Any) -> None:
    if len(heap) < LOOKS:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def remembered(record: Any, recent: Mapping[bytes, bytes]) -> bool:
    """Whether one of these rows has folded an event with the record's message id."""
    words = recent.get(record.key, b"")
    if not words or record.value is None:
        return False
    event = decode_event(record.value, record.key)
    if isinstance(event, Rejected) or not event.message_id:
        return False
    word = message_word(event.message_id)
    return any(words[at : at + WORD_BYTES] == word for at in range(0, len(words), WORD_BYTES))


def plan(
    partition: int, begin: int, end: int, seen: Seen, found: Mapping[int, bytes | None], *, mirrored: bool = False
) -> Lift | None:
    """What is to be done, or None where the log is the rows' own.

    Parameters
    ----------
    found
        Keys of the records at the offsets of `seen.newest`; one that is not there says nothing.
    mirrored
        The operator says that rows were folded from another topic, of which this is a mirror.
    """
    looked = [(offset, found[offset] == key) for offset, key in seen.newest if found.get(offset) is not None]
    strange = seen.next_offset > end or not all(same for _, same in looked)
    if mirrored:
        strange = strange or not looked  # a mirror may hold nothing below what rows have seen
    if not strange or (seen.next_offset <= begin and not mirrored):
        return None
    keep = max([offset + 1 for offset, same in looked if same], default=begin)
    return Lift(partition, begin, end, seen.next_offset, keep)


async def examine(settings: Mapping[str, Any], group: str, *, mirrored: bool = False) -> list[Lift]:
    """Compare rows and log; what an interrupted `lift` has left is to be done first.

    Parameters
    ----------
    group
        The workers'.
    mirrored
        Whether the log is a mirror of the one that the rows were folded from.

    Raises
    ------
    aiokafka.errors.KafkaError
    """
    rows_end, events_end = await ends(settings, PROFILES_CHANGELOG), await ends(settings, EVENTS)
    begun = await read_commits(settings, group, EVENTS, events_end)
    lifts = []
    for partition, end in sorted(events_end.items()):
        if partition in begun and (left := read_note(begun[partition].note)) is not None:
            lifts.append(left)
            continue
        seen = Seen(end)
        async with HistoryReader(settings, PROFILES_CHANGELOG, partition) as rows:
            async for records in rows.read_to(rows_end[partition]):
                for record in records:
                    if record.value is not None:
                        seen.add(record.key, record.value)
        async with HistoryReader(settings, EVENTS, partition) as events:
            oldest = await events.peek()
            begin = end if oldest is None else oldest[0]
            found = {}
            for offset, _key in seen.newest:
                record = await events.at(offset) if offset >= begin else None
                found[offset] = None if record is None else record.key
        lift = plan(partition, begin, end, seen, found, mirrored=mirrored)
        if lift is not None:
            known = await _known(settings, lift, seen.recent)
            lifts.append(msgspec.structs.replace(lift, keep=max(lift.keep, known if mirrored else 0), known=known))
    return lifts


async def _known(settings: Mapping[str, Any], what: Lift, recent: Mapping[bytes, bytes]) -> int:
    """After the last event of the log that a row remembers; 0 for none."""
    known = 0
    async with HistoryReader(settings, EVENTS, what.partition) as reader:
        async for records in reader.read_to(what.end):
            known = max([known, *(record.offset + 1 for record in records if remembered(record, recent))])
    return known


async def members(settings: Mapping[str, Any], group: str) -> int:
    """How many members a consumer group has."""
    async with started(AIOKafkaAdminClient(**settings)) as admin:
        (answer,) = await admin.describe_consumer_groups([group])
        return sum(len(found["members"]) for found in answer.to_object()["groups"])


async def lift(
    settings: Mapping[str, Any], what: Lift, group: str, progress: Callable[[int], None] = lambda offsets: None
) -> int:
    """Do it; returns how many records were copied. No worker of `group` may run; producers may.

    Raises
    ------
    aiokafka.errors.KafkaError
        When the broker refuses; everything may be done again then: until the copies stand, the group's commit says what
        is to be done, and where it reads on is committed together with them.
    """
    at = (await read_commits(settings, group, EVENTS, [what.partition])).get(what.partition, Commit(what.begin))
    await write_commit(settings, group, EVENTS, what.partition, Commit(at.offset, _encode(what).decode()))
    producer = AIOKafkaProducer(
        transactional_id=f"nudge-lift-{what.partition}",  # the same again: it ends what an interrupted one left open
        transaction_timeout_ms=TRANSACTION_S * 1000,
        max_batch_size=BATCH_BYTES,
        compression_type="gzip",
        **settings,
    )
    async with started(producer):
        await _fill(producer, settings, what, progress)
        copied = await _copy(producer, settings, what, group)
    if what.keep <= what.begin:
        async with started(AIOKafkaAdminClient(**settings)) as admin:
            place = TopicPartition(EVENTS, what.partition)
            await admin.delete_records({place: RecordsToDelete(before_offset=what.seen)})
    return copied


async def _fill(
    producer: AIOKafkaProducer, settings: Mapping[str, Any], what: Lift, progress: Callable[[int], None]
) -> None:
    """Use offsets up to `what.seen`, in records that are taken back."""
    while (missing := what.seen - (await ends_at(settings, what.partition))) > 0:
        await producer.begin_transaction()
        left = min(missing, OFFSETS_PER_TRANSACTION)
        while left > 0:
            batch = producer.create_batch()
            while left > 0 and batch.append(key=None, value=b"", timestamp=None) is not None:
                left -= 1
            used = batch.record_count()
            await (await producer.send_batch(batch, EVENTS, partition=what.partition))
            progress(used)
        await producer.abort_transaction()


async def ends_at(settings: Mapping[str, Any], partition: int) -> int:
    """Where a partition of `events` ends now."""
    return (await ends(settings, EVENTS))[partition]


async def _copy(producer: AIOKafkaProducer, settings: Mapping[str, Any], what: Lift, group: str) -> int:
    """Write again, behind what rows have seen, what stands before, and have the group read on there: all or nothing."""
    copied = 0
    await producer.begin_transaction()
    async with HistoryReader(settings, EVENTS, what.partition) as reader:
        reader.skip_to(max(what.keep, what.begin))
        async for records in reader.read_to(what.seen):
            copied += await _send(producer, what.partition, records)
    await producer.send_offsets_to_transaction({TopicPartition(EVENTS, what.partition): what.behind}, group)
    await producer.commit_transaction()
    return copied


async def _send(producer: AIOKafkaProducer, partition: int, records: Sequence[Any]) -> int:
    sent = [
        await producer.send(
            EVENTS,
            record.value,
            key=record.key,
            partition=partition,
            timestamp_ms=record.timestamp,
            headers=list(record.headers),
        )
        for record in records
    ]
    await asyncio.gather(*sent)
    return len(sent)
