"""Kill -9 at named points of a batch's life, one after another, then compare with a single-threaded oracle."""

from __future__ import annotations

import random
from typing import Any

from tests.chaos.harness import feeding, verdict
from tests.chaos.victim import POINTS, VARIABLE
from tests.support.site import POLICIES, Site, eventually


async def run(site: Site, *, seed: int = 1, lives: int = len(POINTS)) -> dict[str, Any]:
    """`lives` workers die one after another, each at another point, while events flow; then one goes on."""
    rng = random.Random(seed)
    points = [rng.choice(POINTS) for _ in range(lives)] if lives > len(POINTS) else list(POINTS)[:lives]
    reached = 0
    async with feeding(site, seed, rate=400) as feed:
        for point in points:
            with site.process(
                "worker", "disk", "tests.chaos.victim",
                NUDGE_POLICY=str(POLICIES / "echo.yaml"), **{VARIABLE: f"{point}:{rng.randint(1, 6)}"},
            ) as victim:  # fmt: skip

                async def dead(victim: Any = victim) -> bool:
                    return victim.returncode is not None

                await eventually(dead, f"the worker dies at {point!r}", 60)
                assert victim.returncode == -9, victim.log_tail()
                reached += f"failpoint reached: {point}" in victim.log_tail()
    with site.worker("disk") as worker:
        found = await verdict(site, [worker])
    return {"seed": seed, "events": feed.fed, "lives": lives, "fired": reached, **found}
