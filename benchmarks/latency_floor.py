"""The floor of `benchmarks.latency`: what remains of the time from event to decision when nothing is folded or decided.

A relay with the worker's record batches and the worker's promise: for each event the row of a user's first one goes to
a changelog, and only when that is acknowledged the decision of an event that triggers one goes out. It has no group, no
store and no thread; rows and decisions are bytes that were made beforehand, by the worker's own core. Between this and
the worker lies what the worker does; what lies below it belongs to broker, load, reader and machine.

    python -m benchmarks.latency --kafka --floor --json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from app.children import Child
from app.core.features import open_features
from app.core.processor import Processor
from app.core.profile import Profile, encode_profile
from app.core.row_parts import Output
from app.learning.serving import prior_scorer
from app.policy.load import load_policy
from app.stream import connection
from app.stream.fetch import ChangelogConsumer
from app.stream.record_batch import RecordBatchBuilder, pack_outputs, pack_rows
from app.topics import create_topics
from benchmarks.common import ROOT, await_report, write_report
from benchmarks.floor import clients
from benchmarks.latency_load import TRIGGERS, Due, value
from benchmarks.workload import BATCH_BYTES, user_key
from schemas.events import PRODUCT_VIEWED
from schemas.topics import BY_NAME, DECISIONS, EVENTS

connection.install()  # as the worker, which it is the floor of

CONTRACT: Final = msgspec.structs.replace(BY_NAME[EVENTS], name="latency-floor-events")
_FETCH_WAIT_MS: Final = 50
_START_S_MAX: Final = 60.0
_RUN: Final = "run"
_SCHEDULED: Final = f"{_RUN}:1700000000250000".encode()
"""The scheduled time of the event that the usual decision was made for; each decision gets its own event's."""
_BEFORE: Final = b'"scheduled_us":"'
_NAMES: Final = tuple(f'"event":"{name}"'.encode() for name in TRIGGERS)


class Usual(msgspec.Struct, frozen=True):
    """What the worker makes of the first event of a user: its row, and of one that triggers a decision the row that
    owes it, and the decision.
    """

    row: bytes
    owing: bytes
    decision: Output

    def answers(self, records: Sequence[Any]) -> tuple[dict[bytes, bytes], list[Output]]:
        """Rows, and the decisions of the events that trigger one, each with the time its event was scheduled for."""
        assert self.decision.value is not None
        before, after = self.decision.value.split(_SCHEDULED)
        rows, decisions = {}, []
        for record in records:
            deciding = any(name in record.value for name in _NAMES)
            rows[record.key] = self.owing if deciding else self.row
            if deciding:
                scheduled, _, _ = record.value.partition(_BEFORE)[2].partition(b'"')
                decided = Output(DECISIONS, record.key, before + scheduled + after, self.decision.headers)
                decisions.append(decided)
        return rows, decisions


class _Record(msgspec.Struct, frozen=True):
    key: bytes
    value: bytes
    timestamp: int
    offset: int = 0
    headers: tuple[()] = ()


def usual(policy: Path) -> Usual:
    """By the worker's own core, under `policy`."""
    processor = Processor(load_policy(policy), prior_scorer(), open_features)

    def made(name: str) -> tuple[bytes, list[Output]]:
        at_us = int(_SCHEDULED.partition(b":")[2])
        record = _Record(user_key(1), value(Due(0.0, 1, name), 1, at_us, _RUN), at_us // 1_000)
        rows: dict[bytes, Profile] = {}
        effects = processor.process([record], "events", 0, rows, now_ms=record.timestamp, acked_offset=0)
        return encode_profile(rows[record.key]), [output for output in effects.outputs if output.topic == DECISIONS]

    owing, (decision,) = made(min(TRIGGERS))
    return Usual(made(PRODUCT_VIEWED)[0], owing, decision)


async def relay(broker: str, partitions: int, policy: Path, report: Path) -> None:
    """Until it is killed. The report says that it reads."""
    made = usual(policy)
    async with clients(broker, CONTRACT.name, partitions, ChangelogConsumer) as (consumer, producer, changelog):
        consumer._fetcher._fetch_max_wait_ms = _FETCH_WAIT_MS
        await consumer.seek_to_end(*consumer.assignment())
        for place in consumer.assignment():
            await consumer.position(place)

        async def send(topic: str, partition: int, batches: Sequence[RecordBatchBuilder]) -> None:
            for future in [await producer.send_batch(batch, topic, partition=partition) for batch in batches]:
                await future

        async def answer(partition: int, records: Sequence[Any]) -> None:
            now_ms = time.time_ns() // 1_000_000
            rows, decisions = made.answers(records)
            await send(changelog, partition, pack_rows(rows.items(), (), now_ms, BATCH_BYTES))
            await send(DECISIONS, partition, pack_outputs(decisions, now_ms, BATCH_BYTES))

        write_report(report, 0.0, {"row_bytes": len(made.row), "owing_bytes": len(made.owing)})
        async with asyncio.TaskGroup() as underway:
            while True:
                fetched = await consumer.getmany(*consumer.assignment(), timeout_ms=1_000)
                for place, records in fetched.items():
                    underway.create_task(answer(place.partition, records))


@asynccontextmanager
async def relaying(bootstrap: str, partitions: int, policy: Path) -> AsyncIterator[None]:
    """The relay as a process of its own, which reads its own topic of events by now; it is gone when the context ends.

    Raises
    ------
    BenchmarkFailed
        When it does not read within a minute.
    """
    await create_topics(bootstrap, partitions, topics=[CONTRACT])
    with tempfile.TemporaryDirectory(prefix="nudge-bench-relay-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-P", "-m", __spec__.name, "--broker", bootstrap, "--partitions", str(partitions)]
        command += ["--policy", str(policy), "--report", str(report)]
        child = Child("relay", command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            await asyncio.to_thread(await_report, child, report, _START_S_MAX)
            yield
        finally:
            child.kill()
            child.stop()


def main() -> None:
    """Be the relay; it runs until it is killed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--broker", required=True)
    arguments.add_argument("--partitions", type=int, required=True)
    arguments.add_argument("--policy", type=Path, required=True)
    arguments.add_argument("--report", type=Path, required=True)
    options = arguments.parse_args()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the worker's
    uvloop.run(relay(options.broker, options.partitions, options.policy, options.report))


if __name__ == "__main__":
    main()
