"""The floor: the least that any Python engine on Kafka must do, with no framework.

Bare aiokafka, JSON decoded into the contract's struct, a hopping-window count a user in a dict, every changed row to a
changelog in whole batches, acknowledged one fetch behind. It stores nothing on disk, decides nothing and survives no
crash: what an engine costs above this is what its features cost.

    python -m benchmarks.floor --json
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.stream.started import started
from app.topics import create_topics
from benchmarks.common import Result, parser, print_results, run_contender, write_report
from benchmarks.workload import BATCH_BYTES, broker_at, describe, fill
from schemas.events import Event, decode_event, epoch_ms
from schemas.topics import Topic

PANE_MS: Final = 20_000
PANES: Final = 3  # a window of 60 s that moves by 20 s
_FETCH_RECORDS: Final = 5_000

Row = dict[int, int]
_encode_row = msgspec.msgpack.Encoder().encode


def measure(bootstrap: str, topic: str, partitions: int, count: int, users: int, *, timeout_s: float = 120.0) -> Result:
    """Process the `count` events that `topic` holds already; see `benchmarks.workload.preload`."""
    arguments = ["--broker", bootstrap, "--topic", topic, "--partitions", str(partitions), "--events", str(count)]
    return run_contender(
        "floor (bare aiokafka)", __spec__.name, arguments, events=count, users=users, timeout_s=timeout_s
    )


def fold(rows: dict[bytes, Row], event: Event, key: bytes) -> None:
    """Count the event in its pane and forget the panes that left the window."""
    assert event.timestamp is not None
    pane = epoch_ms(event.timestamp) // PANE_MS
    row = rows.get(key)
    if row is None:
        rows[key] = {pane: 1}
        return
    row[pane] = row.get(pane, 0) + 1
    if len(row) > PANES:
        for old in [at for at in row if at <= pane - PANES]:
            del row[old]


async def consume(bootstrap: str, topic: str, partitions: int, count: int) -> tuple[float, float, int]:
    """Process `count` events; seconds and processor seconds from the first fetch to the last acknowledgement, rows."""
    async with clients(bootstrap, topic, partitions) as (consumer, producer, changelog):
        return await _run(consumer, producer, changelog, count)


def changelog_contract(name: str) -> Topic:
    """A topic of as many partitions as the events have."""
    return Topic(
        name=name, key="user", value="row", partitions="events", cleanup="compact", retention_ms=-1, purpose="benchmark"
    )


@asynccontextmanager
async def clients(
    bootstrap: str, topic: str, partitions: int, consumer_class: type[AIOKafkaConsumer] = AIOKafkaConsumer
) -> AsyncIterator[tuple[AIOKafkaConsumer, AIOKafkaProducer, str]]:
    """A consumer of the whole topic, a producer, and the name of a changelog that was made for this run."""
    changelog = f"floor-{uuid.uuid4().hex[:8]}-changelog"
    await create_topics(bootstrap, partitions, topics=[changelog_contract(changelog)])
    consumer = consumer_class(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=BATCH_BYTES)
    async with started(consumer), started(producer):
        consumer.assign([TopicPartition(topic, partition) for partition in range(partitions)])
        yield consumer, producer, changelog


async def _run(
    consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, changelog: str, count: int
) -> tuple[float, float, int]:
    rows: dict[bytes, Row] = {}
    seen = 0
    began_s = began_cpu_s = 0.0
    unacknowledged: list[asyncio.Future[Any]] = []
    while seen < count:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=_FETCH_RECORDS)
        if fetched and not began_s:
            began_s, began_cpu_s = time.monotonic(), time.process_time()
        acknowledged = unacknowledged
        unacknowledged = []
        for partition, records in fetched.items():
            changed = set()
            for record in records:
                event = decode_event(record.value, record.key)
                assert isinstance(event, Event), event
                fold(rows, event, record.key)
                changed.add(record.key)
            seen += len(records)
            encoded = ((key, _encode_row(rows[key])) for key in changed)
            unacknowledged += await send_rows(producer, changelog, partition.partition, encoded)
        await asyncio.gather(*acknowledged)
    await asyncio.gather(*unacknowledged)
    return time.monotonic() - began_s, time.process_time() - began_cpu_s, len(rows)


async def send_rows(
    producer: AIOKafkaProducer, changelog: str, partition: int, rows: Iterable[tuple[bytes, bytes]]
) -> list[asyncio.Future[Any]]:
    """Append rows to the changelog in whole batches; returns what their acknowledgements are awaited by."""
    futures = []
    batch = producer.create_batch()
    for key, value in rows:
        if batch.append(key=key, value=value, timestamp=None) is None:
            futures.append(await producer.send_batch(batch, changelog, partition=partition))
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)
    futures.append(await producer.send_batch(batch, changelog, partition=partition))
    return futures


def _contend(options: argparse.Namespace) -> None:
    """The measured process."""
    seconds, cpu_s, rows = uvloop.run(consume(options.broker, options.topic, options.partitions, options.events))
    write_report(options.report, seconds, {"rows": rows, "loop": uvloop.__name__}, cpu_s)


async def _preloaded(options: argparse.Namespace, measured: Callable[..., Result], asked: dict[str, Any]) -> None:
    async with broker_at(options.broker) as bootstrap:
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        count = await fill(bootstrap, topic, options.partitions, options.events, options.users, options.seed)
        arguments = (bootstrap, topic, options.partitions, count, options.users)
        result = await asyncio.to_thread(partial(measured, *arguments, **asked))
    sizes = {"events": options.events, "users": options.users, "partitions": options.partitions}
    print_results([result], describe(options.seed, **sizes), {}, as_json=options.json)


def command(
    doc: str | None,
    measured: Callable[..., Result],
    contend: Callable[[argparse.Namespace], None],
    *flags: str,
) -> None:
    """Measure a floor, or (with --report) be the measured process. `measured` is told which flags were given."""
    arguments = parser(doc)
    for flag in flags:
        arguments.add_argument(f"--{flag}", action="store_true")
    arguments.add_argument("--topic", default="", help=argparse.SUPPRESS)
    arguments.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.report:
        contend(options)
    else:
        asyncio.run(_preloaded(options, measured, {flag: getattr(options, flag) for flag in flags}))


if __name__ == "__main__":
    command(__doc__, measure, _contend)
