"""What the watchdog takes for work: what can be read and is not, not what an offset says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from app.stream.backlog import Backlog
from app.stream.barrier import Barrier
from app.stream.jumps import Jumps
from app.stream.lease import boot_time
from app.stream.transport import BatchedConsumer
from app.vitals import worker_vitals

EVENTS = TP("events", 0)


class Consumer:
    """The consumer of a partition that ends at offset 10, fetched from `position` on."""

    unread: Any = BatchedConsumer.unread
    behind: Any = BatchedConsumer.behind
    lag: Any = BatchedConsumer.lag
    _position: Any = BatchedConsumer._position

    def __init__(self, position: int | None, stable: int | None = None) -> None:
        state = SimpleNamespace(position=position, has_valid_position=position is not None)
        assignment = SimpleNamespace(state_value={TopicPartition("events", 0): state}.get)
        subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
        self._thread = SimpleNamespace(
            _consumer=SimpleNamespace(
                _subscription=subscription, highwater=lambda tp: 10, last_stable_offset=lambda tp: stable
            )
        )
        self.jumps = Jumps(lambda tp: None)  # type: ignore[arg-type,return-value]
        self._committed_offset = {EVENTS: 4}
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


@pytest.mark.parametrize(("stable", "waits"), [(7, ""), (9, "2 records wait"), (-1, "3 records wait")])
def test_what_an_open_transaction_holds_back_is_no_work(stable: int, waits: str) -> None:
    """A worker that ended itself over it would end again, until the transaction does."""
    assert waiting(Consumer(7, stable)).startswith(waits)
    assert bool(waiting(Consumer(7, stable))) is bool(waits)


def test_the_lag_falls_to_zero_where_a_log_ends_in_what_is_never_delivered_and_not_before() -> None:
    consumer = Consumer(10)
    consumer.jumps.start({EVENTS: 4})
    consumer.jumps.read(EVENTS, 4, 8)
    consumer.barrier.begin(EVENTS, 8, 1)
    assert consumer.lag() == {EVENTS: 6}
    consumer.barrier.complete(EVENTS, 8, 1)
    assert consumer.lag() == {EVENTS: 0}
    held_back = Consumer(8, stable=8)
    held_back.jumps.start({EVENTS: 4})
    assert held_back.lag() == {EVENTS: 2}, "somebody may have forgotten a transaction"


def test_what_was_not_fetched_or_waits_for_its_agent_or_is_in_flight_is_work() -> None:
    assert waiting(Consumer(7)) == "3 records wait and 0 batches are in flight"
    consumer = Consumer(10)
    consumer.backlog.delivered("events", 5)
    assert waiting(consumer) == "5 records wait and 0 batches are in flight"
    consumer.backlog.taken("events", 5)
    consumer.barrier.begin(EVENTS, 10, 1)
    assert waiting(consumer) == "0 records wait and 1 batches are in flight"
