"""Two floors with rows: what a row a user on disk costs any engine, before it asks or decides anything.

As `benchmarks.floor`, but the rows are the worker's own, of its usual size: read from RocksDB, decoded, one number in
them changed, encoded, appended to a changelog and written to RocksDB once that has acknowledged. No segment is judged,
no window folded, no timer kept, nothing is published, no group, no lease. What the worker costs above this is what it
decides; what this costs above the other floor is the price of state that may be larger than memory and survives.

With `--undecoded` rows are bytes that nobody looks into, as if folding, deciding and encoding took no time at all, in
whatever language. Then what has been decided is published, once the rows are acknowledged: as many membership changes
an event as the worker has. No engine on this transport and this store can be faster.

    python -m benchmarks.floor_rows --json
    python -m benchmarks.floor_rows --undecoded --json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from app.core.features import open_features
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_parts import Output
from app.policy.load import load_policy
from app.stream import connection
from app.stream.fetch import ChangelogConsumer
from app.stream.record_batch import RecordBatchBuilder, pack_outputs, pack_rows
from app.stream.store import PartitionStore
from app.stream.stores import StoreFactory
from app.topics import create_topics
from benchmarks.common import Result, run_contender, write_report
from benchmarks.core import ConstantScorer
from benchmarks.floor import changelog_contract, clients, command
from benchmarks.nudge_worker import POLICIES
from benchmarks.workload import BATCH_BYTES, events
from schemas.events import Event, decode_event

connection.install()  # as the worker, which it is the floor of

SLICE_RECORDS: Final = 256
_USUAL_EVENTS: Final = 4
"""Events of the row that new users are given, so that rows are of the size that the worker's come to."""
CHANGES_PER_EVENT: Final = 0.87
"""Membership changes that come of an event of the workload, with three events a user (benchmarks/README.md)."""


def measure(
    bootstrap: str,
    topic: str,
    partitions: int,
    count: int,
    users: int,
    *,
    undecoded: bool = False,
    timeout_s: float = 300.0,
) -> Result:
    """Process the `count` events that `topic` holds already; see `benchmarks.workload.preload`."""
    arguments = ["--broker", bootstrap, "--topic", topic, "--partitions", str(partitions), "--events", str(count)]
    name = "floor with undecoded rows" if undecoded else "floor with rows"
    arguments += ["--undecoded"] * undecoded
    return run_contender(name, __spec__.name, arguments, events=count, users=users, timeout_s=timeout_s)


class _Record:
    headers = ()

    def __init__(self, key: bytes, value: bytes, offset: int) -> None:
        self.key, self.value, self.offset = key, value, offset


def usual_row() -> tuple[bytes, list[Output]]:
    """A row as the worker leaves it after a user's first events, under the policy of twenty segments, and what it
    published for them.
    """
    now_ms = time.time_ns() // 1_000_000
    made = events(_USUAL_EVENTS, 1, 1, start_ms=now_ms - 600_000)
    records = [_Record(key, value, offset) for offset, (key, value) in enumerate(made)]
    rows: dict[bytes, Profile] = {}
    processor = Processor(load_policy(POLICIES[20]), ConstantScorer(), open_features)
    effects = processor.process(records, "events", 0, rows, now_ms=now_ms, acked_offset=0)
    (row,) = rows.values()
    return encode_profile(row), effects.outputs


async def consume(
    bootstrap: str, topic: str, partitions: int, count: int, folder: Path, *, undecoded: bool
) -> tuple[float, float, int]:
    """Process `count` events; seconds and processor seconds from the first fetch to the last write, rows."""
    factory = StoreFactory(folder)
    stores = {partition: factory.open("floor", partition) for partition in range(partitions)}
    try:
        async with clients(bootstrap, topic, partitions, ChangelogConsumer) as (consumer, producer, changelog):
            outputs = changelog.replace("changelog", "outputs")
            await create_topics(bootstrap, partitions, topics=[changelog_contract(outputs)])
            floor = _Undecoded if undecoded else _Floor
            return await floor(consumer, producer, changelog, stores, outputs).run(count)
    finally:
        for store in stores.values():
            store.close()


class Writing(NamedTuple):
    """Rows of a partition on their way to the changelog."""

    partition: int
    rows: dict[bytes, bytes]
    added: int
    events: int
    futures: list[asyncio.Future[Any]]


class _Floor:
    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        changelog: str,
        stores: dict[int, PartitionStore],
        outputs: str,
    ) -> None:
        self.consumer = consumer
        self.producer = producer
        self.changelog = changelog
        self.stores = stores
        self.outputs = outputs
        self.usual, self.published = usual_row()
        self.publishing: list[asyncio.Future[Any]] = []

    async def run(self, count: int) -> tuple[float, float, int]:
        """One fetch is processed while the rows of the one before are on their way."""
        seen = 0
        started = started_cpu = 0.0
        writing: list[Writing] = []
        while seen < count:
            fetched = await self.consumer.getmany(*self.consumer.assignment(), timeout_ms=1_000)
            if fetched and not started:
                started, started_cpu = time.monotonic(), time.process_time()
            earlier, writing = writing, []
            for place, records in fetched.items():
                underway = next((one.rows for one in earlier if one.partition == place.partition), {})
                rows, added = self._fold(self.stores[place.partition], underway, records)
                batches = pack_rows(rows.items(), (), _now_ms(), BATCH_BYTES)
                futures = await self._send(self.changelog, place.partition, batches)
                writing.append(Writing(place.partition, rows, added, len(records), futures))
                seen += len(records)
            await self._store(earlier)
        await self._store(writing)
        await asyncio.gather(*self.publishing)
        return time.monotonic() - started, time.process_time() - started_cpu, sum(map(len, self.stores.values()))

    def _fold(
        self, store: PartitionStore, underway: dict[bytes, bytes], records: list[Any]
    ) -> tuple[dict[bytes, bytes], int]:
        changed: dict[bytes, bytes] = {}
        added = 0
        for start in range(0, len(records), SLICE_RECORDS):
            part = records[start : start + SLICE_RECORDS]
            keys = list({record.key for record in part})
            rows = {}
            for key, raw in _newest(keys, store, changed, underway):
                added += raw is None
                rows[key] = decode_profile(self.usual if raw is None else raw)
            for record in part:
                event = decode_event(record.value, record.key)
                assert isinstance(event, Event), event
                row = rows[record.key]
                row.events += 1
                row.offset = record.offset
            for key, row in rows.items():
                changed[key] = encode_profile(row)
        return changed, added

    async def _send(self, topic: str, partition: int, batches: Sequence[RecordBatchBuilder]) -> list[Any]:
        return [await self.producer.send_batch(batch, topic, partition=partition) for batch in batches]

    async def _store(self, written: list[Writing]) -> None:
        for one in written:
            await asyncio.gather(*one.futures)
            store = self.stores[one.partition]
            store.write(one.rows.items(), added=one.added, next_offset=store.next_offset + len(one.rows))
            await self._publish(one)

    async def _publish(self, written: Writing) -> None:
        """Nothing was decided."""


class _Undecoded(_Floor):
    def _fold(
        self, store: PartitionStore, underway: dict[bytes, bytes], records: list[Any]
    ) -> tuple[dict[bytes, bytes], int]:
        changed: dict[bytes, bytes] = {}
        added = 0
        for start in range(0, len(records), SLICE_RECORDS):
            keys = list({record.key for record in records[start : start + SLICE_RECORDS]})
            for key, raw in _newest(keys, store, changed, underway):
                added += raw is None
                # Another object: a row that is changed is written, it is not the one that was read.
                changed[key] = bytes(bytearray(self.usual if raw is None else raw))
        return changed, added

    async def _publish(self, written: Writing) -> None:
        acknowledged, self.publishing = self.publishing, []
        some = itertools.islice(itertools.cycle(self.published), round(CHANGES_PER_EVENT * written.events))
        batches = pack_outputs(some, _now_ms(), BATCH_BYTES)
        self.publishing = await self._send(self.outputs, written.partition, batches)
        await asyncio.gather(*acknowledged)


def _newest(
    keys: list[bytes], store: PartitionStore, changed: dict[bytes, bytes], underway: dict[bytes, bytes]
) -> list[tuple[bytes, bytes | None]]:
    """Each key with its row: as it was changed in this fetch or the one before, or as it is stored."""
    pairs = zip(keys, store.get_many(keys), strict=True)
    return [(key, changed.get(key) or underway.get(key) or stored) for key, stored in pairs]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _contend(options: argparse.Namespace) -> None:
    """The measured process."""
    with tempfile.TemporaryDirectory(prefix="nudge-bench-") as folder:
        made = consume(
            options.broker,
            options.topic,
            options.partitions,
            options.events,
            Path(folder),
            undecoded=options.undecoded,
        )
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # as the worker's: rows are young when they go
        seconds, cpu_s, rows = uvloop.run(made)
    write_report(options.report, seconds, {"rows": rows, "row_bytes": len(usual_row()[0])}, cpu_s)


if __name__ == "__main__":
    command(__doc__, measure, _contend, "undecoded")
