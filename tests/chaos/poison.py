"""How long a poisoned record holds up its neighbours, beside what holds up events that have none for a neighbour.

Everything runs at once on one machine, so a pause next to poison may have any cause. What tells is the comparison in
the same run: how much later than the event before it an event is folded, after poison and after sound events.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from statistics import quantiles
from typing import Any

from app.core.profile import decode_profile
from app.stream.fence import CLAIM_KEY
from schemas.topics import DEAD_LETTERS, EVENTS, PROFILES_CHANGELOG
from tests.chaos.bad_input import POISON
from tests.chaos.harness import at_work, verdict
from tests.support.crowd import crowd
from tests.support.site import Site

_TURN_S = 0.01
_LARGE = 100_000
"""Bytes that take their time on the way, through both topics."""


async def run(
    site: Site, *, seed: int = 1, rate: int = 500, seconds: int = 40, poison_every: int = 500
) -> dict[str, Any]:
    """One worker under a steady rate; each `poison_every`th record is one of `bad_input.POISON`, in turn."""
    events = rate * seconds
    poisoned: set[bytes] = set(POISON)
    with site.worker("poisoned") as worker:
        await site.ready(worker)
        await _feed(site, crowd(rate * 2, users=2_000, seed=seed + 1), rate)  # first times are slower
        await at_work(site, worker, rate)
        records = list(crowd(events, users=2_000, seed=seed))
        for turn, at in enumerate(range(poison_every - 1, events, poison_every)):
            records[at] = records[at][0], POISON[turn % len(POISON)]
        await _feed(site, records, rate)
        found = await verdict(site, [worker])
    folded: dict[int, dict[int, int]] = {}
    for row in await site.records(PROFILES_CHANGELOG):
        if row.key != CLAIM_KEY and row.value is not None:
            folded.setdefault(row.partition, {}).setdefault(decode_profile(row.value).offset, row.timestamp)
    after_poison, after_large, after_sound = [], [], []
    fed: dict[int, list[Any]] = {}
    for record in await site.records(EVENTS):
        fed.setdefault(record.partition, []).append(record)
    for partition, stream in fed.items():
        later = _later_ms(stream, folded.get(partition, {}))
        for record in stream[rate:]:
            if record.offset in later:
                large = len(record.value) > _LARGE
                kind = after_sound if record.value not in poisoned else after_large if large else after_poison
                kind.append(later[record.offset])
    buried = len(await site.read(DEAD_LETTERS))
    count = events // poison_every
    return {
        "seed": seed, "events": events, "rate": rate, "poisoned": count, "buried": buried,
        "later_after_poison_ms": _told(after_poison), "later_after_900_kB_of_poison_ms": _told(after_large),
        "later_after_sound_events_ms": _told(after_sound),
        "fired": int(0 < count == buried), **found,
    }  # fmt: skip


async def _feed(site: Site, records: Iterable[tuple[str, bytes]], rate: int) -> None:
    """At an even pace, whatever the worker does."""
    began = time.monotonic()
    for number, (user, value) in enumerate(records):
        due_s = began + number / rate
        if due_s - time.monotonic() > _TURN_S / 2:
            await asyncio.sleep(due_s - time.monotonic())
        await site.put(EVENTS, user, value)
    await site.flush()


def _later_ms(stream: list[Any], folded: Mapping[int, int]) -> dict[int, float]:
    """By offset: how much longer the next event took until its row was written than the one before. 0 if it did not."""
    took = {record.offset: folded[record.offset] - record.timestamp for record in stream if record.offset in folded}
    offsets = sorted(took)
    later = {}
    for record in stream:
        before = bisect_left(offsets, record.offset) - 1
        after = before + 1 + (record.offset in took)
        if before >= 0 and after < len(offsets):
            later[record.offset] = max(0.0, took[offsets[after]] - took[offsets[before]])
    return later


def _told(values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return {"n": len(values), "p50": cuts[49], "p99": round(cuts[98], 1), "max": max(values)}
