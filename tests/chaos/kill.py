"""Kill -9 a random worker again and again while events flow, then compare with a single-threaded oracle."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import asdict
from typing import Any

from app.children import Child
from schemas.topics import EVENTS
from tests.support.crowd import crowd
from tests.support.oracle import compare, oracle
from tests.support.site import POLICIES, Site, eventually

RATE = 1500
"""Events a second while workers are being killed."""


class Fleet:
    """Workers by number; a killed one is started again on its own disk or, every other time, on an empty one."""

    def __init__(self, site: Site, workers: int) -> None:
        self._site = site
        self._stack = contextlib.ExitStack()
        self._lives = 0
        self.children: list[Child] = [self._start(number) for number in range(workers)]

    def _start(self, number: int) -> Child:
        self._lives += 1
        disk = f"disk-{number}" if self._lives % 2 else f"disk-{number}-{self._lives}"
        child: Child = self._stack.enter_context(self._site.worker(disk))
        return child

    def kill(self, number: int) -> None:
        """SIGKILL, and a new life."""
        self.children[number].kill()
        self.children[number] = self._start(number)

    def close(self) -> None:
        """Kill what is left."""
        self._stack.close()


async def run(site: Site, *, kills: int, workers: int, seed: int, kill_every_s: float = 6.0) -> dict[str, Any]:
    """Feed events at a steady rate, kill `kills` times, let the fleet catch up, and compare.

    Returns
    -------
    dict
        The figures: events, kills that hit a worker with events in flight, and the difference to the oracle.
    """
    rng = random.Random(seed)
    fleet = Fleet(site, workers)
    stop = asyncio.Event()
    fed = 0

    async def feed() -> None:
        nonlocal fed
        began = time.monotonic()
        for user, value in crowd(10_000_000, users=500, seed=seed, poison_every=500):
            await site.put(EVENTS, user, value)
            fed += 1
            if fed % 100 == 0:
                await asyncio.sleep(max(0.0, began + fed / RATE - time.monotonic()))
                if stop.is_set():
                    break
        await site.flush()

    try:
        await site.ready(fleet.children[0])
        feeding = asyncio.create_task(feed())
        in_flight = 0
        for _ in range(kills):
            await asyncio.sleep(kill_every_s * rng.uniform(0.7, 1.3))
            number = rng.randrange(workers)
            working = site.metric(fleet.children[number], "nudge_events_total", topic="events", outcome="applied") > 0
            in_flight += working
            fleet.kill(number)
        stop.set()
        await feeding
        await _caught_up(site, fleet)
        truth = oracle(await site.records(EVENTS), POLICIES / "echo.yaml", time.time_ns() // 1_000_000)
        difference = await compare(site, truth)
    finally:
        stop.set()
        fleet.close()
    return {
        "seed": seed, "workers": workers, "events": fed, "kills": kills, "kills_in_flight": in_flight,
        "decisions": len(truth.decisions), "dead_letters": len(truth.refused), **asdict(difference),
    }  # fmt: skip


async def _caught_up(site: Site, fleet: Fleet) -> None:
    """Wait until nothing is missing; what is still different after that is a failure and is reported as one."""
    truth = oracle(await site.records(EVENTS), POLICIES / "echo.yaml", time.time_ns() // 1_000_000)

    async def nothing_missing() -> bool:
        for child in fleet.children:
            assert child.returncode is None, child.log_tail()
        found = await compare(site, truth)
        return not (found.lost or found.decisions_missing or found.dead_letters_missing)

    with contextlib.suppress(AssertionError):
        await eventually(nothing_missing, "the fleet has caught up", 90)
