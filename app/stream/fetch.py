"""Records as aiokafka's C parser makes them, a fetch of a partition at a time.

aiokafka turns each of them into a Python object of eleven fields, in a generator: as long as all the rest of a restore,
and .7 us of an event.
Which batches count is decided as aiokafka does: aborted transactions and control batches do not, checksums are checked,
and a batch whose last records were compacted away moves the position all the same. What compaction left out is a gap in
the offsets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException


class ChangelogConsumer(AIOKafkaConsumer):
    """`AIOKafkaConsumer` whose `getmany` returns records with `offset`, `key`, `value` and `headers`, and little more.

    It takes no deserializers and no `max_records`.
    """

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int = 0) -> dict[TopicPartition, list[Any]]:
        """See `fetched_records`."""
        return await fetched_records(self._fetcher, partitions, timeout_ms / 1000)


class FetchOnDemand:
    """Has an aiokafka fetcher ask a broker when somebody waits for records, and not as soon as the last were taken.

    What is asked for so early brings the few records that were there a moment after, and keeps the broker from being
    asked for those that come later until somebody has taken them: at a moderate rate a record waits for two turns in
    place of one. After a fetch of `few` records or more there is enough to go on with, and it is asked early.
    """

    def __init__(self, fetcher: Any, few: int) -> None:
        self._fetcher = fetcher
        self._few = few
        self._resting: set[int] = set()
        """Brokers that are not asked until somebody waits."""
        self._find_requests = fetcher._get_actions_per_node
        fetcher._get_actions_per_node = self._requests

    def _requests(self, assignment: Any) -> tuple[Any, ...]:
        requests, *others = self._find_requests(assignment)
        return [(broker, request) for broker, request in requests if broker not in self._resting], *others

    async def records(
        self, partitions: Collection[TopicPartition], timeout_s: float
    ) -> dict[TopicPartition, list[Any]]:
        """See `fetched_records`."""
        fetcher = self._fetcher
        if self._resting:
            self._resting = set()
            fetcher._notify(fetcher._wait_consume_future)
        found = await fetched_records(fetcher, partitions, timeout_s)
        if found and sum(map(len, found.values())) < self._few:
            self._resting = {fetcher._select_read_replica(tp) for tp in found}
        return found


async def fetched_records(
    fetcher: Any, partitions: Collection[TopicPartition], timeout_s: float
) -> dict[TopicPartition, list[Any]]:
    """What aiokafka's fetcher has of `partitions`, as its own method of that name; waits for it at most `timeout_s`.

    Raises
    ------
    aiokafka.errors.KafkaError
        What the broker refused, when nothing else has come; `CorruptRecordException` for a wrong checksum.
    """
    until = monotonic() + timeout_s
    while True:
        if fetcher._subscriptions.reassignment_in_progress:  # what was fetched before may be another's by now
            await fetcher._subscriptions.wait_for_assignment()
        found = _take(fetcher, partitions)
        left_s = until - monotonic()
        if found or left_s <= 0:
            return found
        arrival = fetcher._create_fetch_waiter()
        await asyncio.wait([arrival], timeout=left_s)
        if not arrival.done():
            arrival.cancel()
            return {}
        arrival.result()
        if fetcher._closed:
            return {}


def _take(fetcher: Any, partitions: Collection[TopicPartition]) -> dict[TopicPartition, list[Any]]:
    """What has come; an error only where nothing was taken before it, since that would be lost."""
    found: dict[TopicPartition, list[Any]] = {}
    for tp, held in list(fetcher._records.items()):
        if tp not in partitions:
            if not fetcher._subscriptions.is_assigned(tp):
                del fetcher._records[tp]
            continue
        if not isinstance(held, FetchResult) and found:
            return found
        del fetcher._records[tp]
        fetcher._notify(fetcher._wait_consume_future)  # the next fetch can go
        if not isinstance(held, FetchResult):
            held.check_raise()
        elif held.check_assignment(tp) and held.has_more():
            records = unpack(held._partition_records)
            held._update_position()
            if records:
                found[tp] = records
    return found


def unpack(fetched: Any) -> list[Any]:
    """All records of an aiokafka `PartitionRecords` that was not read from; leaves it at the next offset to fetch.

    Raises
    ------
    CorruptRecordException
        When a checksum is wrong; nothing is to be consumed then.
    """
    found: list[Any] = []
    position = fetched.next_fetch_offset
    batches = fetched._records
    while batches.has_next():
        batch = batches.next_batch()
        if fetched._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {fetched._tp}")
        if fetched._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            fetched._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and fetched._contains_abort_marker(batch):
                fetched._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in fetched._aborted_producers:
                position = batch.next_offset
                continue
        if not batch.is_control_batch:
            records = list(batch)
            if records and records[0].offset < position:  # a fetch begins at the batch that has the offset
                records = [record for record in records if record.offset >= position]
            found += records
        position = batch.next_offset
    fetched.next_fetch_offset = position
    fetched._records_iterator = None  # a cycle: it would keep the fetch's bytes until the next garbage collection
    return found
