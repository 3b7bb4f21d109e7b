"""The sender's part of `benchmarks.sender`, in a process of its own: the deliverer with the FCM provider.

Decisions come from memory instead of Kafka, in batches as the agent hands them over, sixteen at a time. Ledger writes
and receipts are encoded and counted, and acknowledged at once. Everything else is what `nudge sender` runs.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from app.clock import SystemClock
from app.core.ids import decision_id
from app.sender.courier import CourierSettings
from app.sender.delivery import Deliverer, DeliverySettings
from app.sender.providers.fcm import FcmProvider, FcmSettings
from app.sender.providers.http2 import Http2Settings
from app.sender.recorder import NoRecorder
from benchmarks.common import write_report
from schemas.decisions import Content, Decision, decision_headers, encode_decision
from schemas.erasures import Subjects

BATCH = 500
BATCHES_MAX = 16


@dataclass
class MemoryRecord:
    """What is read of a Kafka record."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


@dataclass
class MemoryBatch:
    """What is used of a `RecordBatch`."""

    records: Sequence[MemoryRecord]
    topic: str = "decisions"
    partition: int = 0

    def complete(self) -> None: ...

    def give_back(self) -> None: ...


class Sink(NoRecorder):
    """Ledger, receipts and figures: counts, and the time of each attempt."""

    def __init__(self) -> None:
        self.rows = 0
        self.receipts = 0
        self.outcomes: dict[str, int] = {}
        self.seconds = array("d")

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def keys_with_prefix(self, partition: int, prefix: bytes) -> list[bytes]:
        return []

    async def write(self, partition: int, rows: list[tuple[bytes, bytes | None]]) -> None:
        self.rows += len(rows)

    async def produce(self, *_record: object) -> None:
        self.receipts += 1

    def settled(self, provider: str, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def took(self, provider: str, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) > 1_000_000:
            del self.seconds[:500_000]


def batches(count: int, now_ms: int) -> Iterator[MemoryBatch]:
    """Decisions as the worker writes them."""
    for start in range(0, count, BATCH):
        records = []
        for n in range(start, min(start + BATCH, count)):
            user = f"user-{n}"
            made = Decision(
                id=decision_id(user, "cart_abandoned", "", n),
                user=user,
                action="send",
                campaign="cart_abandoned",
                category="reminders",
                variant="plain",
                decided_ms=now_ms,
                expires_ms=now_ms + 3_600_000,
                content=Content(
                    "Still in your basket", "Two things are waiting for you.", "shop://cart", {"cart": "7"}
                ),
                features={"open_rate": 0.22, "hour_sin": -0.97},
                token={"token": f"{n:0152d}", "type": "android"},
            )
            records.append(MemoryRecord(user.encode(), encode_decision(made), n, now_ms, decision_headers(made)))
        yield MemoryBatch(records)


async def run(options: Any) -> None:
    """Deliver `options.decisions`, or as many as fit into `options.seconds`."""
    sink = Sink()
    http = Http2Settings(ca_file=options.ca, timeout_s=20.0)
    provider = FcmProvider(
        FcmSettings(options.credentials, url=options.url, token_url=f"{options.url}/token", http=http)
    )
    deliverer = Deliverer(
        table=sink,
        produce=sink.produce,
        providers={"fcm": provider},
        default="fcm",
        clock=SystemClock(),
        suppressed=lambda _user, _category: False,
        subjects=Subjects(b"a secret of the benchmark"),
        settings=DeliverySettings(CourierSettings(concurrency=options.concurrency)),
        recorder=sink,
    )
    now_ms = time.time_ns() // 1_000_000
    for batch in batches(200, now_ms):  # connections, token
        await deliverer.deliver(batch)
    ready = list(batches(options.decisions, now_ms)) if not options.seconds else batches(10**9, now_ms)
    del sink.seconds[:]
    sink.outcomes.clear()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    slots, tasks = asyncio.Semaphore(BATCHES_MAX), set()
    if options.seconds:
        asyncio.get_running_loop().call_later(options.seconds, deliverer.stop)
    for batch in ready:
        await slots.acquire()
        if options.seconds and time.perf_counter() - began_s > options.seconds:
            break
        task = asyncio.create_task(deliverer.deliver(batch))
        tasks.add(task)
        task.add_done_callback(lambda done: (tasks.discard(done), slots.release()))
    await asyncio.gather(*tasks)
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    await deliverer.close()
    sent = sink.outcomes.get("sent", 0)
    attempts = sorted(sink.seconds)
    detail = {
        "sent": sent,
        "outcomes": sink.outcomes,
        "ledger_rows": sink.rows,
        "receipts": sink.receipts,
        "p50_ms": round(attempts[len(attempts) // 2] * 1_000, 2),
        "p99_ms": round(attempts[int(len(attempts) * 0.99)] * 1_000, 2),
        "cpu_us_per_send": round(cpu_s / max(sent, 1) * 1e6, 1),
    }
    write_report(options.report, seconds, detail)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--ca", type=Path, required=True)
    arguments.add_argument("--credentials", type=Path, required=True)
    arguments.add_argument("--decisions", type=int, default=30_000)
    arguments.add_argument("--seconds", type=float, default=0.0)
    arguments.add_argument("--concurrency", type=int, default=64)
    arguments.add_argument("--report", type=Path, required=True)
    uvloop.run(run(arguments.parse_args()))


if __name__ == "__main__":
    main()
