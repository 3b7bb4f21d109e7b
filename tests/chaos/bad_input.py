"""Poison, duplicates and disorder in one stream: what is folded is what a clean run folds."""

from __future__ import annotations

import asyncio
import random
import time
from types import SimpleNamespace
from typing import Any

from schemas.topics import DEAD_LETTERS
from tests.chaos.harness import ECHO, at_work, put, verdict
from tests.support.crowd import crowd
from tests.support.oracle import oracle
from tests.support.site import Site

POISON = (
    b"\x00\xff" * 40, b"{", b"null", b"[1,2]", b'{"type":"track","event":1,"userId":"u1"}',
    b'{"type":"track","event":"X","userId":"u1","timestamp":NaN}',
    b'{"type":"track","event":"X","userId":"u1","timestamp":"soon"}',
    b'{"type":"track","event":"X","userId":"u1","properties":' + b"[" * 2000 + b"]" * 2000 + b"}", b"x" * 900_000,
)  # fmt: skip

_PLACE = {"nudge_reason", "nudge_topic", "nudge_partition", "nudge_offset"}


async def run(
    site: Site, *, seed: int = 1, events: int = 5000, poison_every: int = 500, duplicates: float = 0.3
) -> dict[str, Any]:
    """One worker folds a stream in which everything is wrong that may be."""
    rng = random.Random(seed)
    clean = list(crowd(events, users=200, seed=seed))
    dirty, poisoned, doubled = [], 0, 0
    for number, (user, value) in enumerate(clean):
        dirty.append((user, value))
        if rng.random() < duplicates:
            dirty.insert(max(0, len(dirty) - rng.randrange(1, 20)), (user, value))
            doubled += 1
        if number % poison_every == poison_every - 1:
            dirty.append((user, POISON[poisoned % len(POISON)]))
            poisoned += 1
    with site.worker("dirty") as worker:
        await site.ready(worker)
        await put(site, dirty)
        await at_work(site, worker, events)
        found = await verdict(site, [worker])
        slowest = await asyncio.to_thread(_slowest_batch_ms, site, worker)
    buried = await site.read(DEAD_LETTERS)
    return {
        "seed": seed, "events": events, "duplicates": doubled, "poisoned": poisoned, "buried": len(buried),
        "buried_with_reason_and_place": sum(headers.keys() >= _PLACE for *_, headers in buried),
        "decisions_of_the_clean_stream": _clean_decisions(clean), "slowest_batch_ms_max": slowest,
        "fired": int(poisoned > 0 and doubled > 0), **found,
    }  # fmt: skip


def _slowest_batch_ms(site: Site, worker: Any) -> float:
    """The upper bound of the bucket that holds the slowest batch."""
    text = site.get(worker, "/metrics")[1]
    counts = [
        (float(line.split('le="')[1].split('"')[0]), float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if line.startswith("nudge_batch_processing_seconds_bucket")
    ]
    total = max((count for _, count in counts), default=0.0)
    return next((bound * 1000 for bound, count in counts if count == total and total), 0.0)


def _clean_decisions(clean: list[tuple[str, bytes]]) -> int:
    """How many decisions the stream leads to without poison and duplicates."""
    records = [
        SimpleNamespace(key=user.encode(), value=value, offset=at, partition=0, timestamp=0, headers=())
        for at, (user, value) in enumerate(clean)
    ]
    return len(oracle(records, ECHO, time.time_ns() // 1_000_000).decisions)
