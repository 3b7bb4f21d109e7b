"""Lifts `events` beyond every offset that rows have seen, after it was made anew or a broker lost its end.

Rows pass events by that stand at or before the last one they have seen. In another log that would be nearly all, for as
long as it takes to grow as long as the old one was. So the offsets that rows have seen are used up, by records that no
reader is given (their transaction is aborted); what stood there already is copied behind them, in its order, and
deleted in front. Rows stay as they are, no offset is used twice, and no id of a decision either.
"""

from __future__ import annotations

import asyncio
import heapq
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from app.core import owed
from app.core.profile import decode_profile
from app.core.row_heads import BadRow
from app.stream.history import HistoryReader
from app.whole_topic import ends
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
    """

    partition: int
    begin: int
    end: int
    seen: int
    keep: int

    @property
    def filler(self) -> int:
        """Offsets to be used up."""
        return max(0, self.seen - self.end)


Last = tuple[int, bytes]
"""Where a row's last event stands, as the row says; its key."""


class Seen:
    """What the rows of a partition have seen: the offset after it, and the newest last events below `end`."""

    def __init__(self, end: int) -> None:
        self._end = end
        self.next_offset = 0
        self._newest: list[Last] = []

    def add(self, key: bytes, raw: bytes) -> None:
        """Take in a row; what is no row is passed by."""
        try:
            row = decode_profile(raw)
        except BadRow:
            return
        marks = [entry.mark for entry in owed.outputs(row, key)]
        self.next_offset = max(self.next_offset, row.offset + 1, *marks)  # the mark of a timer is the next offset
        if 0 <= row.offset < self._end and key < _NO_USER:
            push = heapq.heappush if len(self._newest) < LOOKS else heapq.heappushpop
            push(self._newest, (row.offset, key))

    @property
    def newest(self) -> list[Last]:
        """The newest first."""
        return sorted(self._newest, reverse=True)


def plan(partition: int, begin: int, end: int, seen: Seen, found: Mapping[int, bytes | None]) -> Lift | None:
    """What is to be done, or None where the log is the rows' own.

    Parameters
    ----------
    found
        Keys of the records at the offsets of `seen.newest`; one that is not there says nothing.
    """
    looked = [(offset, found[offset] == key) for offset, key in seen.newest if found.get(offset) is not None]
    strange = seen.next_offset > end or not all(same for _, same in looked)
    if not strange or seen.next_offset <= begin:
        return None
    keep = max([offset + 1 for offset, same in looked if same], default=begin)
    return Lift(partition, begin, end, seen.next_offset, keep)


async def examine(settings: Mapping[str, Any]) -> list[Lift]:
    """Compare rows and log. Raises `aiokafka.errors.KafkaError`."""
    rows_end, events_end = await ends(settings, PROFILES_CHANGELOG), await ends(settings, EVENTS)
    lifts = []
    for partition, end in sorted(events_end.items()):
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
        lift = plan(partition, begin, end, seen, found)
        if lift is not None:
            lifts.append(lift)
    return lifts


async def members(settings: Mapping[str, Any], group: str) -> int:
    """How many members a consumer group has."""
    async with _admin(settings) as admin:
        (answer,) = await admin.describe_consumer_groups([group])
        return sum(len(found["members"]) for found in answer.to_object()["groups"])


async def lift(settings: Mapping[str, Any], what: Lift, progress: Callable[[int], None] = lambda offsets: None) -> int:
    """Do it; returns how many records were copied. No worker may run; producers may.

    Raises
    ------
    aiokafka.errors.KafkaError
        When the broker refuses; everything may be done again then.
    """
    producer = AIOKafkaProducer(
        transactional_id=f"nudge-lift-{what.partition}-{uuid.uuid4().hex}",
        transaction_timeout_ms=TRANSACTION_S * 1000,
        max_batch_size=BATCH_BYTES,
        compression_type="gzip",
        **settings,
    )
    await producer.start()
    try:
        await _fill(producer, settings, what, progress)
        copied = await _copy(producer, settings, what)
    finally:
        await producer.stop()
    if what.keep <= what.begin:
        async with _admin(settings) as admin:
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


async def _copy(producer: AIOKafkaProducer, settings: Mapping[str, Any], what: Lift) -> int:
    """Write again, behind what rows have seen, what stands before: all of it or nothing."""
    copied = 0
    await producer.begin_transaction()
    async with HistoryReader(settings, EVENTS, what.partition) as reader:
        reader.skip_to(max(what.keep, what.begin))
        async for records in reader.read_to(what.seen):
            copied += await _send(producer, what.partition, records)
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


@asynccontextmanager
async def _admin(settings: Mapping[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**settings)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
