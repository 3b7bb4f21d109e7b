"""What fault tests share: a feed of events, the wait until workers have caught up, and the comparison."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.children import Child
from schemas.topics import EVENTS
from tests.support.crowd import crowd
from tests.support.oracle import Difference, Truth, compare, oracle
from tests.support.site import POLICIES, Site, eventually

ECHO = POLICIES / "echo.yaml"
WRONG = ("lost", "over_counted", "rows_different", "decisions_missing", "decisions_spurious", "dead_letters_missing")
"""Figures that must be 0."""


class Feed:
    """Events at a steady rate, until it is told to stop: a crowd's, or `records` (user, value)."""

    def __init__(
        self,
        site: Site,
        seed: int,
        rate: int,
        records: Iterable[tuple[str, bytes]] | None = None,
    ) -> None:
        self.site, self.rate = site, rate
        self._records = records or crowd(10_000_000, users=500, seed=seed, poison_every=500)
        self.fed = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Feed; every event is acknowledged in the end."""
        began = time.monotonic()
        for user, value in self._records:
            await self.site.put(EVENTS, user, value)
            self.fed += 1
            if self.fed % 50 == 0:
                await asyncio.sleep(max(0.0, began + self.fed / self.rate - time.monotonic()))
                if self._stop.is_set():
                    break
        await self.site.flush()

    def stop(self) -> None:
        """No more."""
        self._stop.set()


@contextlib.asynccontextmanager
async def feeding(site: Site, seed: int, rate: int = 1000) -> AsyncIterator[Feed]:
    """Events flow inside of the block."""
    feed = Feed(site, seed, rate)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        feed.stop()
        await task


async def put(site: Site, records: Iterable[tuple[str, bytes]]) -> int:
    """Produce records (user, value), acknowledged; returns how many."""
    count = 0
    for user, value in records:
        await site.put(EVENTS, user, value)
        count += 1
    await site.flush()
    return count


async def applied(site: Site, worker: Child) -> float:
    """How many events a worker has folded."""
    return await asyncio.to_thread(site.metric, worker, "nudge_events_total", topic="events", outcome="applied")


async def at_work(site: Site, worker: Child, events: int = 1) -> None:
    """Wait until a worker has folded that many events."""

    async def working() -> bool:
        assert worker.returncode is None, worker.log_tail()
        return await applied(site, worker) >= events

    await eventually(working, f"the {worker.name} folds events")


async def verdict(
    site: Site,
    workers: Sequence[Child],
    timeout_s: float = 90.0,
    *,
    policy: Path = ECHO,
    apart_from: Sequence[str] = (),
) -> dict[str, Any]:
    """Wait until what stands in the topics agrees with the oracle, for `timeout_s` at most, and compare.

    What is still different then is a failure, and is reported as one. The events are read again as long as there is a
    difference: senders go on writing receipts. `apart_from`: see `compare`.
    """
    began = time.monotonic()
    truth, found = await _compared(site, policy, apart_from)

    async def agreed() -> bool:
        nonlocal truth, found
        for child in workers:
            assert child.returncode is None, child.log_tail()
        if found.total():
            truth, found = await _compared(site, policy, apart_from)
        return not found.total()

    try:
        await eventually(agreed, "the workers have caught up, and rows and decisions are the oracle's", timeout_s)
    except AssertionError as exc:
        print(exc)
    return {
        "caught_up_s": round(time.monotonic() - began, 1),
        "decisions": len(truth.decisions),
        "dead_letters": len(truth.refused),
        **asdict(found),
    }


async def _compared(site: Site, policy: Path, apart_from: Sequence[str]) -> tuple[Truth, Difference]:
    truth = oracle(await site.records(EVENTS), policy, time.time_ns() // 1_000_000)
    return truth, await compare(site, truth, apart_from)
