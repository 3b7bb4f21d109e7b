"""Records that are gone are told; what compaction and transactions leave out is not."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from app.metrics import Metrics
from app.stream.barrier import Barrier
from app.stream.commits import digest
from app.stream.jumps import Jumps
from app.stream.transport import BatchedConsumer
from tests.support.engine import Died, FakeApp

EVENTS = TP("events", 0)


async def beginning(_tp: TP) -> int:
    return 0


@pytest.mark.parametrize(
    ("topic", "in_flight", "ends"), [("events", 0, 1), ("decisions", 0, 0), ("decisions", 9, 1), ("decisions", -9, 1)]
)
async def test_a_reader_ends_where_rows_or_batches_know_the_offsets_of_another_log(
    topic: str, in_flight: int, ends: int
) -> None:
    app = FakeApp()
    app.folded_topics = lambda: {"events"}  # type: ignore[attr-defined]
    consumer: Any = SimpleNamespace(app=app, barrier=Barrier())
    tp = TP(topic, 0)
    if in_flight:
        consumer.barrier.begin(tp, abs(in_flight), 1)
    if in_flight > 0:
        consumer.barrier.complete(tp, in_flight, 1)
    jumps = Jumps(beginning)
    jumps.start({tp: 10})
    assert jumps.read(tp, 10, 12) is None
    expected = jumps.read(tp, 3, 5)
    assert expected == 12
    with pytest.raises(Died) if ends else contextlib.nullcontext():
        BatchedConsumer._went_back(consumer, tp, 3, expected)
    assert len(app.died) == ends


async def test_a_log_in_which_another_record_stands_before_the_committed_offset_is_another() -> None:
    app: Any = FakeApp()
    app.folded_topics = lambda: {"events"}
    log = {
        ("decisions", partition): SimpleNamespace(key=b"u", value=b"%d" % partition, timestamp=1)
        for partition in range(3)
    }
    ours = {0: digest(log["decisions", 0]), 1: "of another", 2: "of one that is gone"}

    async def committed_lasts(topic: str, partitions: list[int]) -> dict[int, str]:
        return {partition: ours[partition] for partition in partitions if topic == "decisions"}

    async def records_at(topic: str, offsets: dict[int, int]) -> dict[int, Any]:
        assert set(offsets.values()) <= {6}
        return {partition: log[topic, partition] for partition in offsets if partition != 2}

    app.committed_lasts, app.records_at = committed_lasts, records_at
    consumer: Any = SimpleNamespace(app=app)
    offsets = {TP("decisions", partition): 7 for partition in range(3)} | {TP("events", 0): 7, TP("outcomes", 0): 0}
    with capture_logs() as said:
        assert await BatchedConsumer._of_another_log(consumer, offsets) == [TP("decisions", 1)]
    assert [entry["event"] for entry in said] == ["topic_is_another"]


async def told(*batches: tuple[int, int], begins: int = 0, failure: Exception | None = None) -> list[dict[str, Any]]:
    """What is said of batches (first offset, end) that are read from offset 10 of a log that begins at `begins`."""

    async def beginning(_tp: TP) -> int:
        if failure is not None:
            raise failure
        return begins

    jumps = Jumps(beginning, pause_s=0)
    jumps.start({EVENTS: 10})
    with capture_logs() as said:
        for first, end in batches:
            jumps.read(EVENTS, first, end)
        await asyncio.gather(*jumps.asking)
    return [dict(entry) for entry in said]


@pytest.mark.parametrize("batches", [((10, 12), (12, 20)), ((10, 12), (14, 20)), ((11, 12),)])
async def test_a_log_that_still_begins_before_the_gap_has_lost_nothing(batches: tuple[tuple[int, int], ...]) -> None:
    assert await told(*batches, begins=9) == []


async def test_records_that_were_deleted_unread_are_counted() -> None:
    (said,) = await told((10, 12), (30, 31), begins=30)
    assert (said["event"], said["offset"], said["records"]) == ("records_gone", 12, 18)
    (said,) = await told((30, 31), begins=25)
    assert (said["offset"], said["records"]) == (10, 15)


async def test_records_that_are_gone_are_counted_from_the_first_on() -> None:
    registry = CollectorRegistry()
    count = Metrics(registry).count_gone(["events"])
    value = partial(registry.get_sample_value, "nudge_records_gone_total", {"topic": "events"})
    assert value() == 0

    async def begins(_tp: TP) -> int:
        return 30

    jumps = Jumps(begins, count, pause_s=0)
    jumps.start({EVENTS: 10})
    jumps.read(EVENTS, 30, 31)
    await asyncio.gather(*jumps.asking)
    assert value() == 20


async def test_a_log_that_goes_on_before_where_it_was_read_to_is_another() -> None:
    (said,) = await told((0, 5), (5, 6))  # once, and the reader is told
    assert (said["event"], said["offset"], said["expected"]) == ("offsets_went_back", 0, 10)


async def test_a_broker_that_does_not_answer_is_no_loss_and_no_end() -> None:
    (said,) = await told((30, 31), failure=KafkaConnectionError("away"))
    assert said["event"] == "gap_not_explained"


async def test_many_gaps_are_one_question_and_each_is_answered() -> None:
    asked: list[int] = []
    gone: list[int] = []

    async def begins(_tp: TP) -> int:
        asked.append(len(asked))
        return 40

    jumps = Jumps(begins, lambda _topic, offsets: gone.append(offsets), pause_s=0.01)
    jumps.start({EVENTS: 10})
    for first in (12, 14, 35, 60, 70):  # what is before 40 was deleted, what is behind is markers
        jumps.read(EVENTS, first, first + 1)
        await asyncio.sleep(0)
    await asyncio.gather(*jumps.asking)
    assert len(asked) == 2, "the first at once, the others together"
    assert gone == [2, 1, 20, 4]
