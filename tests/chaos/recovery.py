"""How long the partitions of a worker that was killed stand still until another one goes on with them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any, Final

from tests.chaos.harness import applied, at_work, feeding, verdict
from tests.chaos.pauses import longest_pauses_s
from tests.chaos.suspend import SESSION_S
from tests.support.site import Site

GRACE_S: Final = 5.0
"""Beyond the session timeout, for the rebalance, the restore and what has piled up."""


async def run(site: Site, *, seed: int = 1, kills: int = 5, rate: int = 300) -> dict[str, Any]:
    """Of two workers one is killed, nobody takes its place until the other has its partitions; again and again."""
    rng = random.Random(seed)
    spans, fired = [], 0
    with contextlib.ExitStack() as stack:
        fleet = [stack.enter_context(site.worker(f"life-{number}")) for number in range(2)]
        for child in fleet:
            await site.ready(child)
        async with feeding(site, seed, rate) as feed:
            for number in range(kills):
                for child in fleet:
                    await at_work(site, child, int(await applied(site, child)) + 1)
                begin_ms = time.time_ns() // 1_000_000
                fleet.pop(rng.randrange(2)).kill()
                fired += 1
                await asyncio.sleep(SESSION_S + GRACE_S + 1)
                spans.append((begin_ms, time.time_ns() // 1_000_000))
                fleet.append(stack.enter_context(site.worker(f"life-{number + 2}")))
                await site.ready(fleet[-1])
        found = await verdict(site, fleet)
    pauses, idle = await longest_pauses_s(site, spans)
    return {
        "seed": seed, "events": feed.fed, "kills": kills, "recovery_s": pauses, "recovery_s_max": max(pauses),
        "limit_s": SESSION_S + GRACE_S, "too_slow": sum(pause > SESSION_S + GRACE_S for pause in pauses),
        "longest_gap_of_the_feed_s": idle, "fired": fired, **found,
    }  # fmt: skip
