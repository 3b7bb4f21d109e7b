"""The thread in which aiokafka's consumer runs: what it fetches, commits, and is told by the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalGenerationError,
    NoError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from app.stream.committed import READ_COMMITTED
from app.stream.fetch import FetchOnDemand
from app.stream.lease import Lease

FETCH_WAIT_MS_MAX: Final = 50
"""How long a broker may hold an empty fetch: an idle consumer asks 20 times a second."""
FEW_RECORDS: Final = 1_024
"""After a fetch of fewer the next waits for what is on its way, and is asked for then; after one of more there is
enough to go on with.
"""
_STILL_A_MEMBER: Final = frozenset({NoError.errno, RebalanceInProgressError.errno})
_FENCED_INSTANCE_ID: Final = 82  # aiokafka has no name for it
_NO_MEMBER: Final = frozenset({UnknownMemberIdError.errno, IllegalGenerationError.errno, _FENCED_INSTANCE_ID})


class BatchedConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's, with fetching and committing as we have them."""

    _on_demand: FetchOnDemand

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust asks the broker to hold an empty fetch for 1.5 s. Kafka answers as soon as there is something; the
        embedded broker looks again only after about half that time, which was the whole latency of a decision.
        """
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS_MAX
        consumer._isolation_level = READ_COMMITTED  # Faust would only in a transaction of its own
        add_notes(consumer, self.consumer.note_of)
        return consumer

    async def on_start(self) -> None:
        """Start, and renew the lease with every answer of the coordinator."""
        await super().on_start()
        consumer = self._ensure_consumer()
        self._on_demand = FetchOnDemand(consumer._fetcher, FEW_RECORDS)
        coordinator = getattr(consumer, "_coordinator", None)
        if isinstance(coordinator, GroupCoordinator):
            keep_lease(coordinator, self.app.lease)

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> Any:
        """As Faust's, with the records as they were parsed (`app.stream.fetch`) and all that there are."""
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            return await self._on_demand.records(active_partitions, timeout or 0.0)

    async def seek_to_start(self) -> dict[TP, int]:
        """See `BatchedConsumer.seek_to_start`; runs in the consumer's thread."""
        consumer = self._ensure_consumer()
        offsets: dict[TP, int] = {}
        for tp in sorted(consumer.assignment()):
            committed = await consumer.committed(TopicPartition(tp.topic, tp.partition))
            if committed is None:
                await consumer.seek_to_beginning(tp)
                committed = await consumer.position(tp)
            else:
                consumer.seek(tp, committed)
            offsets[TP(tp.topic, tp.partition)] = committed
        return offsets

    async def seek_to(self, tp: TP, offset: int) -> None:
        """Read on from `offset`; runs in the consumer's thread."""
        self._ensure_consumer().seek(TopicPartition(tp.topic, tp.partition), offset)

    async def beginning(self, tp: TP) -> int:
        """The oldest offset of a partition; runs in the consumer's thread."""
        place = TopicPartition(tp.topic, tp.partition)
        found = await self._ensure_consumer().beginning_offsets([place])
        return int(found[place])


def add_notes(consumer: Any, note: Callable[[str, int, int], str]) -> None:
    """Have each commit carry what `note` says of topic, partition and offset, as Kafka's metadata of it."""
    commit = consumer.commit

    async def noted(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        places = {tp: at.offset for tp, at in offsets.items()}
        await commit({tp: OffsetAndMetadata(at, note(tp.topic, tp.partition, at)) for tp, at in places.items()})

    consumer.commit = noted


def keep_lease(coordinator: Any, lease: Lease) -> None:
    """Have the coordinator's client tell the lease what it is answered: by SyncGroup, and by each heartbeat."""
    send = coordinator._send_req

    async def told(request: Any) -> Any:
        asked_at = lease.clock()
        response = await send(request)
        if isinstance(request, (HeartbeatRequest, SyncGroupRequest)):
            if response.error_code in _STILL_A_MEMBER:
                lease.renew(asked_at)
            elif response.error_code in _NO_MEMBER:
                lease.lose()
        return response

    coordinator._send_req = told
