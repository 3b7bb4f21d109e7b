"""SIGSTOP of a worker and of a sender for three session timeouts, then SIGCONT: zombies that must not be believed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

from app.children import Child
from tests.chaos.harness import at_work, feeding, verdict
from tests.support.site import Site, eventually

SESSION_S = 6.0
"""Of the development profile."""


async def run(site: Site, *, seed: int = 1, times: float = 3.0) -> dict[str, Any]:
    """Suspend one of two workers and one of two senders; both have successors meanwhile, and wake beside them."""
    with (
        site.worker("one") as one, site.worker("two") as two,
        site.sender("s-one") as sends, site.sender("s-two") as other,
    ):  # fmt: skip
        for child in (one, two, sends, other):
            await site.ready(child)
        async with feeding(site, seed, rate=600) as feed:
            await at_work(site, one)
            await at_work(site, two)
            asleep = [one, sends]
            _signal(asleep, signal.SIGSTOP)
            delivered = sum(site.lines().values())
            await asyncio.sleep(times * SESSION_S)

            async def others_deliver() -> bool:
                return sum(site.lines().values()) > delivered

            await eventually(others_deliver, "those awake have taken over", 60)
            meanwhile = sum(site.lines().values()) - delivered
            _signal(asleep, signal.SIGCONT)
            await asyncio.sleep(SESSION_S)
        fenced = sum(child.returncode == 70 for child in asleep)
        assert all(child.returncode in (None, 70) for child in asleep), [child.log_tail() for child in asleep]
        found = await verdict(site, [two])
        wanted = found["decisions"]

        async def delivered_all() -> bool:
            return len(site.lines()) >= wanted - 200  # what a dead sender had reserved is given up, not sent twice

        await eventually(delivered_all, "decisions are delivered", 60)
    twice = sum(count - 1 for count in site.lines().values())
    return {
        "seed": seed, "events": feed.fed, "suspended_s": times * SESSION_S, "delivered_meanwhile": meanwhile,
        "ended_by_the_lease": fenced, "fired": int(meanwhile > 0), "sent": len(site.lines()), "sent_twice": twice,
        **found,
    }  # fmt: skip


def _signal(children: Sequence[Child], what: signal.Signals) -> None:
    for child in children:
        os.kill(child.pid, what)
