"""The whole `nudge sender` as a process: Kafka in, the ledger in RocksDB and its changelog, receipts out.

The topic is filled before it starts; the figure is of what it had sent between the first and the last look at its
metrics, ten times a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any

from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from app.children import Child
from app.embedded import free_port
from app.stream.started import started
from app.topics import create_topics
from benchmarks.common import ROOT, BenchmarkFailed, ProcessSampler
from benchmarks.push_sender import batches
from benchmarks.workload import broker_at
from schemas.topics import DECISIONS
from tests.support.push.keys import Keys

PARTITIONS = 4
_TIMEOUT_S = 180.0


async def measure(keys: Keys, url: str, decisions: int, concurrency: int, *, seconds: float = 0.0) -> dict[str, Any]:
    """Sends a second, p99 of an attempt (the bound of its bucket) and resident size.

    Parameters
    ----------
    decisions
        What the topic is filled with before the sender starts.
    seconds
        Stop after so long, however many were sent; 0: when all were.
    """
    async with broker_at("") as bootstrap:
        await create_topics(bootstrap, PARTITIONS, 1)
        await _fill(bootstrap, decisions)
        with tempfile.TemporaryDirectory(prefix="nudge-bench-") as folder:
            port = free_port()
            settings = {
                "NUDGE_BROKER": bootstrap,
                "NUDGE_PROFILE": "dev",
                "NUDGE_IDEMPOTENT": "false",
                "NUDGE_PARTITIONS": str(PARTITIONS),
                "NUDGE_DATA_DIR": folder,
                "NUDGE_HTTP_PORT": str(port),
                "NUDGE_SENDER_PROVIDER": "fcm",
                "NUDGE_SENDER_CONCURRENCY": str(concurrency),
                "NUDGE_FCM_CREDENTIALS": str(keys.account),
                "NUDGE_FCM_URL": url,
                "NUDGE_FCM_TOKEN_URL": f"{url}/token",
                "NUDGE_PUSH_CA_FILE": str(keys.ca),
                "PYTHONPATH": str(ROOT),
            }
            child = Child("sender", [sys.executable, "-m", "app.cli", "sender"], env=os.environ | settings)
            try:
                with ProcessSampler(child.pid) as sampler:
                    found = await _watch(child, port, decisions, seconds)
                cpu_us = round(sampler.cpu_s / max(found["sent"], 1) * 1e6)
                return found | {"rss_mb": sampler.rss_mb_max, "cpu_us_per_send": cpu_us}
            finally:
                child.kill()


async def _fill(bootstrap: str, decisions: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, acks="all")
    async with started(producer):
        for batch in batches(decisions, time.time_ns() // 1_000_000):
            for record in batch.records:
                await producer.send(
                    DECISIONS,
                    record.value,
                    key=record.key,
                    partition=record.offset % PARTITIONS,
                    headers=list(record.headers),
                )


async def _watch(child: Child, port: int, decisions: int, seconds: float) -> dict[str, Any]:
    began: tuple[float, float] | None = None
    deadline = time.monotonic() + _TIMEOUT_S + seconds
    while True:
        sent, p99_ms = await asyncio.to_thread(_look, port)
        now_s = time.monotonic()
        if sent and began is None:
            began = (now_s, sent)
        if began is not None and (sent >= decisions or 0 < seconds <= now_s - began[0]):
            rate = (sent - began[1]) / (now_s - began[0])
            return {"sends_per_second": round(rate, 1), "p99_ms": p99_ms, "sent": int(sent)}
        if child.returncode is not None or now_s > deadline:
            raise BenchmarkFailed(f"the sender has sent {sent:.0f} of {decisions}:\n{child.log_tail()}")
        await asyncio.sleep(1.0 if seconds else 0.1)


def _look(port: int) -> tuple[float, float]:
    """How much was sent, and the bound of the bucket that holds the 99th percentile of an attempt's time (ms)."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            families = {f.name: f for f in text_string_to_metric_families(response.read().decode())}
    except (urllib.error.URLError, OSError):
        return 0.0, 0.0
    sent = sum(s.value for s in families["nudge_sends"].samples if s.labels.get("outcome") == "sent")
    buckets = [s for s in families["nudge_send_seconds"].samples if s.name.endswith("_bucket")]
    total = max((s.value for s in buckets), default=0.0)
    bounds = [float(s.labels["le"]) for s in buckets if s.value >= 0.99 * total > 0]
    return sent, round(min(bounds, default=0.0) * 1_000, 1)
