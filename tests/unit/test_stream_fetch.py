from __future__ import annotations

import asyncio
import gc
import random
import struct
import weakref
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import (
    READ_COMMITTED,
    READ_UNCOMMITTED,
    FetchError,
    FetchResult,
    PartitionRecords,
)
from aiokafka.consumer.fetcher import (
    Fetcher as AIOKafkaFetcher,
)
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CorruptRecordException, TopicAuthorizationFailedError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from app.stream.fetch import FetchOnDemand, fetched_records, unpack

_CRC_AT, _ATTRIBUTES_AT, _LAST_DELTA_AT = 17, 21, 23
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
ABORT = struct.pack(">hh", 0, 0)


def batch(
    base: int, offsets: list[int], *, producer: int = -1, flags: int = 0, last: int | None = None, key: bytes = b""
) -> bytes:
    """A record batch as Kafka stores it. `offsets` are those that compaction left; `last` is what was there before."""
    builder = DefaultRecordBatchBuilder(2, 0, int(bool(flags & _TRANSACTIONAL)), producer, 0, 0, 1 << 20)
    for offset in offsets:
        value = None if offset % 7 == 0 else b"v%d" % offset
        builder.append(offset - base, 1, key or b"k%d" % offset, value, [("e", b"1")] if offset % 2 else [])
    raw = bytearray(builder.build())
    raw[0:8] = struct.pack(">q", base)
    attributes = struct.unpack_from(">h", raw, _ATTRIBUTES_AT)[0] | flags
    struct.pack_into(">hi", raw, _ATTRIBUTES_AT, attributes, (offsets[-1] if last is None else last) - base)
    struct.pack_into(">I", raw, _CRC_AT, calc_crc32c(bytes(raw[_ATTRIBUTES_AT:])))
    return bytes(raw)


def fetched(raw: bytes, offset: int, aborted: Any = (), isolation: int = READ_UNCOMMITTED) -> Any:
    return PartitionRecords(
        TopicPartition("t", 0), MemoryRecords(raw), list(aborted), offset, None, None, True, isolation
    )  # fmt: skip


def both(raw: bytes, offset: int, aborted: Any = (), isolation: int = READ_UNCOMMITTED) -> list[int]:
    """The offsets that `unpack` gives; aiokafka's own reading gives the same records and the same position."""
    theirs, ours = (fetched(raw, offset, aborted, isolation) for _ in range(2))
    wanted = [(record.offset, record.key, record.value, record.headers) for record in theirs]
    given = [(record.offset, record.key, record.value, tuple(record.headers)) for record in unpack(ours)]
    assert given == wanted
    assert ours.next_fetch_offset == theirs.next_fetch_offset
    return [each[0] for each in given]


def test_a_fetch_begins_in_the_middle_of_a_batch() -> None:
    assert both(batch(0, [0, 1, 2, 3]) + batch(4, [4, 5]), 2) == [2, 3, 4, 5]


def test_offsets_and_tails_that_compaction_took_away_are_passed_over() -> None:
    raw = batch(0, [1, 4], last=9) + batch(20, [20], last=25)
    assert both(raw, 0) == [1, 4, 20]
    got = fetched(raw, 0)
    unpack(got)
    assert got.next_fetch_offset == 26


def test_control_batches_are_no_records_and_aborted_transactions_are_left_out_where_asked() -> None:
    raw = batch(0, [0, 1], producer=5, flags=_TRANSACTIONAL) + batch(2, [2], producer=6, flags=_TRANSACTIONAL)
    raw += batch(3, [3], producer=5, flags=_TRANSACTIONAL | _CONTROL, key=ABORT)
    raw += batch(4, [4], producer=5, flags=_TRANSACTIONAL)
    assert both(raw, 0) == [0, 1, 2, 4]
    assert both(raw, 0, [(5, 0)], READ_COMMITTED) == [2, 4]


def test_a_fetch_of_control_batches_alone_moves_the_position() -> None:
    raw = batch(7, [7], producer=5, flags=_TRANSACTIONAL | _CONTROL, key=ABORT)
    got = fetched(raw, 7)
    assert (unpack(got), got.next_fetch_offset) == ([], 8)


def test_a_wrong_checksum_gives_nothing_and_moves_nothing() -> None:
    damaged = bytearray(batch(0, [0, 1]) + batch(2, [2]))
    damaged[-1] ^= 1
    got = fetched(bytes(damaged), 0)
    with pytest.raises(CorruptRecordException):
        unpack(got)
    assert got.next_fetch_offset == 0


def test_what_was_read_is_freed_at_once() -> None:
    got = fetched(batch(0, [0, 1]), 0)
    gone = weakref.ref(got)
    gc.disable()
    try:
        unpack(got)
        del got
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("seed", range(30))
def test_any_log_is_read_as_aiokafka_reads_it(seed: int) -> None:
    rng = random.Random(seed)
    raw, base, aborted = b"", 0, []
    for _ in range(rng.randint(1, 12)):
        length = rng.randint(1, 9)
        kept = sorted(rng.sample(range(base, base + length), rng.randint(1, length)))
        producer = rng.choice((-1, 5, 6))
        flags = 0 if producer < 0 else _TRANSACTIONAL
        if flags and rng.random() < 0.3:
            kept, flags = kept[:1], flags | _CONTROL
        elif flags and rng.random() < 0.5:
            aborted.append((producer, base))
        raw += batch(
            base, kept, producer=producer, flags=flags, last=base + length - 1, key=ABORT if flags > 16 else b""
        )
        base += length + rng.choice((0, 0, 3))
    start = rng.randint(0, base)
    both(raw, start, aborted, rng.choice((READ_COMMITTED, READ_UNCOMMITTED)))


class Position:
    """What aiokafka knows of an assigned partition."""

    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def consumed_to(self, offset: int) -> None:
        self.position = offset


class Fetcher:
    """What `fetched_records` asks of aiokafka's: partition 1 has been refused, the others have a batch each."""

    active = True
    reassignment_in_progress = False
    _closed = False

    def __init__(self) -> None:
        self._subscriptions = self
        self._wait_consume_future = None
        self.asked = 0
        self.waiters: list[asyncio.Future[None]] = []
        self.positions = {TopicPartition("t", p): Position(0) for p in range(3)}
        self._records: dict[TopicPartition, Any] = {}
        for tp in self.positions:
            self.put(tp, batch(0, [0, 1]))
        self._records[TopicPartition("t", 1)] = FetchError(error=TopicAuthorizationFailedError("t"), backoff=0)

    def put(self, tp: TopicPartition, raw: bytes) -> None:
        offset = self.positions[tp].position
        records = PartitionRecords(tp, MemoryRecords(raw), [], offset, None, None, True, READ_UNCOMMITTED)
        self._records[tp] = FetchResult(tp, assignment=self, partition_records=records, backoff=0)

    def state_value(self, tp: TopicPartition) -> Position:
        return self.positions[tp]

    def is_assigned(self, tp: TopicPartition) -> bool:
        return tp in self.positions

    def _notify(self, _future: Any) -> None:
        self.asked += 1

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        self.waiters.append(asyncio.get_running_loop().create_future())
        return self.waiters[-1]


async def test_an_error_behind_records_is_raised_when_those_have_been_taken() -> None:
    fetcher = Fetcher()
    every = set(fetcher.positions)
    taken = [await fetched_records(fetcher, every, 0.0)]
    with pytest.raises(TopicAuthorizationFailedError):
        await fetched_records(fetcher, every, 0.0)
    taken.append(await fetched_records(fetcher, every, 0.0))
    read = [(tp.partition, record.offset) for each in taken for tp, records in each.items() for record in records]
    assert read == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert [position.position for position in fetcher.positions.values()] == [2, 0, 2]
    assert fetcher.asked == 3, "each makes room for another fetch"


async def test_what_is_not_asked_for_stays_and_what_is_no_longer_ours_goes() -> None:
    fetcher = Fetcher()
    first, _, last = fetcher.positions
    del fetcher.positions[first]
    assert await fetched_records(fetcher, {TopicPartition("t", 9)}, 0.0) == {}
    assert list(fetcher._records) == [TopicPartition("t", 1), last]


async def test_it_waits_for_the_partitions_that_were_asked_for() -> None:
    fetcher = Fetcher()
    first, _, last = fetcher.positions
    fetcher._records.clear()
    task = asyncio.create_task(fetched_records(fetcher, {first}, 60.0))
    for tp in (last, first):
        await asyncio.sleep(0)
        fetcher.put(tp, batch(0, [0]))
        fetcher.waiters[-1].set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)
    assert list(await task) == [first]
    assert len(fetcher.waiters) == 2
    assert await fetched_records(fetcher, {first}, 0.001) == {}


class Brokers:
    """What aiokafka's fetcher asks of its client: partition p of topic t is led by broker p, and has a log."""

    _metadata_max_age_ms = 300_000

    def __init__(self, partitions: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.cluster = self
        self.ends = dict.fromkeys(range(partitions), 0)
        self.asked: list[tuple[int, int]] = []
        """Broker and offset of each request."""
        self._more = asyncio.Condition()

    def leader_for_partition(self, tp: TopicPartition) -> int:
        return tp.partition

    async def append(self, partition: int, records: int) -> None:
        async with self._more:
            self.ends[partition] += records
            self._more.notify_all()

    async def send(self, broker: int, request: Any) -> Any:
        """Answers as soon as there is a record."""
        ((topic, ((partition, offset, _),)),) = request.topics
        self.asked.append((broker, offset))
        async with self._more:
            await self._more.wait_for(lambda: self.ends[partition] > offset)
            end = self.ends[partition]
        raw = batch(offset, list(range(offset, end)))
        return SimpleNamespace(API_VERSION=4, topics=[(topic, [(partition, 0, end, end, [], raw)])])

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def two_brokers() -> AsyncIterator[tuple[Brokers, AIOKafkaFetcher]]:
    brokers = Brokers(2)
    tps = {TopicPartition("t", p) for p in brokers.ends}
    subscriptions = SubscriptionState()
    subscriptions.assign_from_user(tps)
    for tp in tps:
        subscriptions.subscription.assignment.state_value(tp).seek(0)
    fetcher = AIOKafkaFetcher(brokers, subscriptions)
    yield brokers, fetcher
    await fetcher.close()


async def test_after_few_records_their_broker_is_asked_only_when_somebody_waits(
    two_brokers: tuple[Brokers, AIOKafkaFetcher],
) -> None:
    brokers, fetcher = two_brokers
    first = TopicPartition("t", 0)
    on_demand = FetchOnDemand(fetcher, 5)
    waiting = asyncio.create_task(on_demand.records([first], 60.0))
    await brokers.settle()
    await brokers.append(0, 2)
    assert [record.offset for record in (await waiting)[first]] == [0, 1]
    await brokers.append(0, 1)
    await brokers.settle()
    await brokers.append(0, 1)
    await brokers.settle()
    assert sorted(brokers.asked) == [(0, 0), (1, 0)]
    found = await on_demand.records([first], 60.0)
    assert [record.offset for record in found[first]] == [2, 3], "all that has come meanwhile, in one go"
    assert sorted(brokers.asked) == [(0, 0), (0, 2), (1, 0)]


async def test_after_many_records_their_broker_is_asked_at_once(two_brokers: tuple[Brokers, AIOKafkaFetcher]) -> None:
    brokers, fetcher = two_brokers
    await brokers.append(0, 5)
    on_demand = FetchOnDemand(fetcher, 5)
    assert len((await on_demand.records([TopicPartition("t", 0)], 60.0))[TopicPartition("t", 0)]) == 5
    await brokers.settle()
    assert sorted(brokers.asked) == [(0, 0), (0, 5), (1, 0)]


async def test_one_broker_is_asked_while_another_ones_records_are_taken(
    two_brokers: tuple[Brokers, AIOKafkaFetcher],
) -> None:
    brokers, fetcher = two_brokers
    first, second = (TopicPartition("t", p) for p in range(2))
    on_demand = FetchOnDemand(fetcher, 5)
    await brokers.append(0, 1)
    assert list(await on_demand.records([first, second], 60.0)) == [first]
    await brokers.append(1, 1)
    await brokers.settle()
    assert list(await on_demand.records([first, second], 60.0)) == [second], "it is there already"
    await brokers.settle()
    assert sorted(brokers.asked) == [(0, 0), (0, 1), (1, 0)], "the first is asked for more, the second rests"
