"""Where recorded events come from: the `events` topic, or the demo's real purchases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.stream.history import HistoryReader
from app.trial.records import Recorded
from schemas.topics import EVENTS


def from_topic(settings: Mapping[str, Any], at_ms: Callable[[int], int]) -> Iterator[Recorded]:
    """Everything that `events` holds now, partition by partition; `at_ms` turns wall time to event time."""
    runner = asyncio.Runner()
    with runner:
        ends = runner.run(_ends(settings))
        for partition, end in sorted(ends.items()):
            reading = _read(settings, partition, end, at_ms)
            while (records := runner.run(_next(reading))) is not None:
                yield from records


async def _next(reading: Any) -> list[Recorded] | None:
    found: list[Recorded] | None = await anext(reading, None)
    return found


async def _read(settings: Mapping[str, Any], partition: int, end: int, at_ms: Callable[[int], int]) -> Any:
    async with HistoryReader(settings, EVENTS, partition) as reader:
        async for records in reader.read_to(end):
            yield [
                Recorded(record.key, record.value, partition, record.offset, at_ms(record.timestamp))
                for record in records
            ]


async def _ends(settings: Mapping[str, Any]) -> dict[int, int]:
    """The high watermark of each partition, from a fetch: it is exact on every broker."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="earliest", **settings)
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        partitions = [TopicPartition(EVENTS, p) for p in sorted(consumer.partitions_for_topic(EVENTS) or ())]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any(consumer.highwater(tp) is None for tp in partitions):
            await consumer.getmany(timeout_ms=100, max_records=1)
        return {tp.partition: int(consumer.highwater(tp)) for tp in partitions}
    finally:
        await consumer.stop()


def from_demo(start: date, days: float, users: int, seed: int) -> Iterator[Recorded]:
    """The demo's purchases and the visits around them, without answers: nothing was ever sent.

    Raises
    ------
    app.demo.journey.JourneyMissing
        When the extra `demo` is not installed.
    """
    from app.demo.faults import Shares  # noqa: PLC0415 - the demo's data are an extra
    from app.demo.journey import load_journey  # noqa: PLC0415
    from app.demo.script import write_script  # noqa: PLC0415

    journey = load_journey(start, days, households_max=users)
    for offset, delivery in enumerate(write_script(journey, seed, Shares())):
        yield Recorded(delivery.key, delivery.value, 0, offset, delivery.at_ms)
