"""Static members are restarted one after another by SIGTERM: their partitions wait, and nothing is read twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from app.children import Child
from tests.chaos.harness import applied, at_work, feeding, verdict
from tests.chaos.pauses import longest_pauses_s
from tests.support.site import Site


async def run(site: Site, *, seed: int = 1, workers: int = 2, rounds: int = 2, rate: int = 300) -> dict[str, Any]:
    """Restart each worker `rounds` times on its disk, under its static id."""
    assert site.real, "on the embedded broker a static member that comes back may wait for ever: use --kafka"
    spans, exits, replayed, rebalanced, stopping = [], [], 0.0, 0.0, 0.0
    with contextlib.ExitStack() as stack:

        def start(number: int) -> Child:
            child: Child = stack.enter_context(site.worker(f"member-{number}", NUDGE_INSTANCE_ID=f"member-{number}"))
            return child

        fleet = [start(number) for number in range(workers)]
        for child in fleet:
            await site.ready(child)
        async with feeding(site, seed, rate) as feed:
            for child in fleet:
                await at_work(site, child)
            for turn in range(rounds * workers):
                number = turn % workers
                others = [child for child in fleet if child is not fleet[number]]
                before = await _rebalances(site, others)
                begin_ms, began = time.time_ns() // 1_000_000, time.monotonic()
                replayed += await _replayed(site, fleet[number])
                exits.append(await asyncio.to_thread(fleet[number].stop, 20.0))
                stopping = max(stopping, time.monotonic() - began)
                fleet[number] = start(number)
                await site.ready(fleet[number])
                await at_work(site, fleet[number])
                spans.append((begin_ms, time.time_ns() // 1_000_000))
                rebalanced += await _rebalances(site, others) - before
        found = await verdict(site, fleet)
        for child in fleet:
            replayed += await _replayed(site, child)
        done = sum([await applied(site, child) for child in fleet])
    pauses, idle = await longest_pauses_s(site, spans)
    return {
        "seed": seed, "events": feed.fed, "restarts": len(spans), "pause_s": pauses, "pause_s_max": max(pauses),
        "of_that_stopping_s_max": round(stopping, 2), "longest_gap_of_the_feed_s": idle, "replayed": int(replayed),
        "rebalances_of_the_others": int(rebalanced), "exit_codes": exits,
        "fired": int(0 < done < feed.fed and not any(exits)), **found,
    }  # fmt: skip


async def _rebalances(site: Site, workers: list[Child]) -> float:
    counts = [await asyncio.to_thread(site.metric, child, "nudge_rebalances_total") for child in workers]
    assert all(counts), "each has been assigned partitions at least once, and says so"
    return sum(counts)


async def _replayed(site: Site, worker: Child) -> float:
    """How many events a worker has read that were in their row already."""
    return await asyncio.to_thread(site.metric, worker, "nudge_events_total", topic="events", outcome="replayed")
