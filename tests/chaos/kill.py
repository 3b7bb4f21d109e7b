"""Kill -9 a random worker again and again while events flow, then compare with a single-threaded oracle."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from app.children import Child
from app.stream.app import EXIT_FATAL
from tests.chaos.harness import Feed, verdict
from tests.support.site import Site

RATE = 1500
"""Events a second while workers are being killed."""


class Fleet:
    """Workers by number; a killed one is started again on its own disk or, every other time, on an empty one."""

    def __init__(self, site: Site, workers: int) -> None:
        self._site = site
        self._stack = contextlib.ExitStack()
        self._lives = 0
        self.ended_themselves = 0
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

    async def keep(self) -> None:
        """Start again, until cancelled, what has ended itself: on a starved machine a worker loses its lease."""
        while True:
            for number, child in enumerate(self.children):
                if child.returncode is not None:
                    assert child.returncode == EXIT_FATAL, child.log_tail()
                    self.children[number] = self._start(number)
                    self.ended_themselves += 1
            await asyncio.sleep(0.2)

    def close(self) -> None:
        """Kill what is left."""
        self._stack.close()


async def run(
    site: Site, *, kills: int = 20, workers: int = 2, seed: int = 1, kill_every_s: float = 6.0
) -> dict[str, Any]:
    """Feed events at a steady rate, kill `kills` times, let the fleet catch up, and compare.

    Returns
    -------
    dict
        The figures: events, kills that hit a worker with events in flight, and the difference to the oracle.
    """
    rng = random.Random(seed)
    fleet = Fleet(site, workers)
    feed = Feed(site, seed, RATE)
    keeper = asyncio.create_task(fleet.keep())
    try:
        await site.ready(fleet.children[0])
        feeding = asyncio.create_task(feed.run())
        in_flight = 0
        for _ in range(kills):
            await asyncio.sleep(kill_every_s * rng.uniform(0.7, 1.3))
            number = rng.randrange(workers)
            working = site.metric(fleet.children[number], "nudge_events_total", topic="events", outcome="applied") > 0
            in_flight += working
            fleet.kill(number)
        feed.stop()
        await feeding
        found = await verdict(site, [])
        assert not keeper.done(), keeper.exception()
    finally:
        keeper.cancel()
        feed.stop()
        fleet.close()
    return {
        "seed": seed, "workers": workers, "events": feed.fed, "kills": kills, "kills_in_flight": in_flight,
        "ended_themselves": fleet.ended_themselves,
        "fired": int(in_flight > 0),
        **found,
    }  # fmt: skip
