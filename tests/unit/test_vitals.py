"""What the watchdog takes for work: what can be read and is not, not what an offset says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from app.stream.backlog import Backlog
from app.stream.barrier import Barrier
from app.stream.lease import boot_time
from app.stream.transport import BatchedConsumer
from app.vitals import worker_vitals

EVENTS = TP("events", 0)


class Consumer:
    """The consumer of a partition that ends at offset 10, fetched from `position` on."""

    unread: Any = BatchedConsumer.unread

    def __init__(self, position: int | None) -> None:
        state = SimpleNamespace(position=position, has_valid_position=position is not None)
        assignment = SimpleNamespace(state_value={TopicPartition("events", 0): state}.get)
        subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
        self._thread = SimpleNamespace(_consumer=SimpleNamespace(_subscription=subscription))
        self.barrier, self.backlog, self.fetched_at = Barrier(), Backlog(), boot_time()

    def highwater(self, _tp: TP) -> int:
        return 10


def waiting(consumer: Consumer) -> str:
    recovery = SimpleNamespace(completed=SimpleNamespace(is_set=lambda: True))
    lease = SimpleNamespace(valid=True)
    app: Any = SimpleNamespace(
        batches=consumer, tables=SimpleNamespace(recovery=recovery), lease=lease, consumer_generation_id=1
    )
    engine: Any = SimpleNamespace(
        source="events", tenures=lambda: {0: object()}, position=lambda _partition: 9, lag=lambda: {EVENTS: 1}
    )
    return worker_vitals(app, engine, {}).waiting


@pytest.mark.parametrize("position", [10, None])
def test_a_marker_of_a_transaction_at_the_end_of_a_log_is_no_work(position: int | None) -> None:
    assert waiting(Consumer(position)) == ""


def test_what_was_not_fetched_or_waits_for_its_agent_or_is_in_flight_is_work() -> None:
    assert waiting(Consumer(7)) == "3 records wait and 0 batches are in flight"
    consumer = Consumer(10)
    consumer.backlog.delivered("events", 5)
    assert waiting(consumer) == "5 records wait and 0 batches are in flight"
    consumer.backlog.taken("events", 5)
    consumer.barrier.begin(EVENTS, 10, 1)
    assert waiting(consumer) == "0 records wait and 1 batches are in flight"
