"""A worker joins or leaves every second: the group settles afterwards, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from tests.chaos.harness import feeding, verdict
from tests.support.site import Site


async def run(site: Site, *, seed: int = 1, seconds: int = 60) -> dict[str, Any]:
    """One worker stays; others come and go by SIGTERM and SIGKILL."""
    rng = random.Random(seed)
    joins = leaves = kills = 0
    with contextlib.ExitStack() as stack, site.worker("steady") as steady:
        await site.ready(steady)
        guests: list[Any] = []
        async with feeding(site, seed, rate=300) as feed:
            for number in range(seconds):
                if len(guests) < 2 and rng.random() < 0.7:
                    guests.append(stack.enter_context(site.worker(f"guest-{number % 3}-{number}")))
                    joins += 1
                elif guests:
                    guest = guests.pop(rng.randrange(len(guests)))
                    if rng.random() < 0.5:
                        guest.kill()
                        kills += 1
                    else:
                        await asyncio.to_thread(guest.stop, 20.0)
                        leaves += 1
                await asyncio.sleep(1.0)
        for guest in guests:
            await asyncio.to_thread(guest.stop, 20.0)
        found = await verdict(site, [steady], 60.0)
    return {
        "seed": seed, "events": feed.fed, "joins": joins, "leaves": leaves, "kills": kills,
        "fired": int(joins > 2 and leaves + kills > 2), **found,
    }  # fmt: skip
