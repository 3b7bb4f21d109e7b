"""Workers are suspended while they start, once or more and longer than the session: each gets ready all the same.

A worker that is suspended as it joins, is assigned or restores loses what it was just given, and has to begin again in
the middle of a beginning. Who is suspended for longer than its lease may end itself; nobody may stand still until the
watchdog ends it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from typing import Any, Final

from app.children import Child
from tests.chaos.harness import feeding, verdict
from tests.chaos.suspend import SESSION_S
from tests.support.site import Site

_BEFORE_S: Final = (0.8, 3.0)
"""From the process's beginning to its suspension: imports, join, assignment, restore."""
_LIMIT_S: Final = 90.0
_STALL_S: Final = 40
_HEARS_S: Final = 3.0
"""A worker that has just woken believes that it is ready until a heartbeat, one a second, tells it otherwise."""
_LOOK_S: Final = 0.1


async def run(site: Site, *, seed: int = 1, starts: int = 120, at_once: int = 3, rate: int = 100) -> dict[str, Any]:
    """`starts` starts, `at_once` at a time, beside a worker that stays and while events flow.

    `fired` counts those suspended at least once before they had been ready; `wedged` those that the watchdog ended, or
    that were neither ready nor ended within 90 s of their last suspension.
    """
    left = iter(range(starts))
    found: Counter[str] = Counter()
    slowest = 0.0

    async def lane(number: int) -> None:
        nonlocal slowest
        for start in left:
            dice = random.Random(f"{seed}-{start}")
            disk = f"lane-{number}" if dice.random() < 0.5 else f"start-{start}"
            with site.worker(disk, NUDGE_WATCHDOG_STALL_S=str(_STALL_S)) as worker:
                end, seconds = await _start(site, worker, dice, found)
                print(f"start {start}: {end} {seconds:.1f} s after its last suspension", flush=True)
                found[end] += 1
                slowest = max(slowest, seconds)

    with site.worker("steady") as steady:
        await site.ready(steady)
        async with feeding(site, seed, rate=rate) as feed:
            await asyncio.gather(*(lane(number) for number in range(at_once)))
        compared = await verdict(site, [steady])
    return {
        "seed": seed, "events": feed.fed, "starts": starts, "fired": found["fired"],
        "ready": found["ready"], "ended_by_the_lease": found["ended"], "wedged": found["wedged"],
        "ready_after_s_max": round(slowest, 1), **compared,
    }  # fmt: skip


async def _start(site: Site, worker: Child, dice: random.Random, found: Counter[str]) -> tuple[str, float]:
    """Suspend it, once or more; how it ended ("ready", "ended", "wedged"), and how long after the last time."""
    await asyncio.sleep(dice.uniform(*_BEFORE_S))
    for time_no in range(dice.randint(1, 3)):
        if worker.returncode is not None:
            break
        if time_no == 0:
            found["fired"] += await asyncio.to_thread(site.status, worker) != 200
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(0.5, 5.0) if dice.random() < 0.3 else dice.uniform(1.0, 1.5) * SESSION_S)
        os.kill(worker.pid, signal.SIGCONT)
        await asyncio.sleep(dice.uniform(0.0, 0.3) if dice.random() < 0.5 else dice.uniform(0.0, 4.0))
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < _LIMIT_S:
        if worker.returncode is not None:
            assert worker.returncode == 70, worker.log_tail()
            return "wedged" if "is wedged" in site.log(worker) else "ended", seconds
        if seconds > _HEARS_S and await asyncio.to_thread(site.status, worker) == 200:
            return "ready", seconds
        await asyncio.sleep(_LOOK_S)
    return "wedged", seconds
