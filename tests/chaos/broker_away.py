"""The network between the broker and two workers and a sender fails for a while, in three ways, while events arrive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from app.children import Child
from tests.chaos.ends import ends_of
from tests.chaos.harness import applied, at_work, feeding, verdict
from tests.support.proxy import Fault, Proxy
from tests.support.site import Site, eventually

FAULTS: Final[tuple[Fault, ...]] = ("drop", "half-open", "slow")
ENDED_ITSELF: Final = 70
KILLED: Final = -9
RED_S_MAX: Final = 20.0
SENDER: Final = "post"
LOST_BY_A_SENDER_MAX: Final = 200
"""Promotional messages that a sender had reserved when it ended: whether they went out is unknown, so nobody tries."""


class Fleet:
    """Workers and a sender; one that ends itself is started again on its disk, as an orchestrator does."""

    def __init__(self, site: Site, names: Sequence[str]) -> None:
        self._site = site
        self._stack = contextlib.ExitStack()
        self.children = {name: self._start(name) for name in (*names, SENDER)}
        self.restarts = self.sender_restarts = 0

    def _start(self, name: str) -> Child:
        process = self._site.sender(name) if name == SENDER else self._site.worker(name)
        child: Child = self._stack.enter_context(process)
        return child

    def workers(self) -> list[Child]:
        """Without the sender."""
        return [child for name, child in self.children.items() if name != SENDER]

    async def keep(self) -> None:
        """Start again what has ended itself, until cancelled."""
        while True:
            for name, child in self.children.items():
                if child.returncode is not None:
                    assert child.returncode in (ENDED_ITSELF, KILLED), child.log_tail()
                    self.children[name] = self._start(name)
                    self.restarts += name != SENDER
                    self.sender_restarts += name == SENDER
            await asyncio.sleep(0.2)

    def close(self) -> None:
        """Kill what is left."""
        self._stack.close()

    async def all_say(self, status: int, timeout_s: float) -> float:
        """Seconds until each worker's readiness is `status`, or until it has ended; see `eventually`."""
        began = time.monotonic()

        async def they_do() -> bool:
            found = [await asyncio.to_thread(self._site.status, child) for child in self.children.values()]
            return all(answer == status or (answer == 0 and status != 200) for answer in found)

        await eventually(they_do, f"each worker's readiness is {status}", timeout_s)
        return round(time.monotonic() - began, 1)


@contextlib.asynccontextmanager
async def keeping(site: Site, names: Sequence[str]) -> AsyncIterator[Fleet]:
    """Ready workers of these names and a sender, kept running inside of the block."""
    fleet = Fleet(site, names)
    keeper = asyncio.create_task(fleet.keep())
    try:
        for child in fleet.children.values():
            await site.ready(child)
        yield fleet
        assert not keeper.done(), keeper.exception()
    finally:
        keeper.cancel()
        fleet.close()


async def run(
    site: Site,
    *,
    seed: int = 1,
    outage_s: float = 60.0,
    faults: Sequence[Fault] = FAULTS,
    rate: int = 300,
    kill_sender: bool = False,
) -> dict[str, Any]:
    """Each fault for `outage_s`, one after another; after each, workers and sender catch up under the same load.

    An outage lasts at least until readiness is red. `kill_sender` kills the sender in the middle of it: of what it had
    on its way nobody knows whether it was sent.
    """
    assert site.proxy is not None, "this recipe needs a broker behind a proxy"
    figures: dict[str, Any] = {}
    fired = True
    async with keeping(site, ("one", "two")) as fleet:
        for turn, fault in enumerate(faults):
            async with feeding(site, seed * 10 + turn, rate) as feed:
                await all_at_work(site, fleet)
                before = feed.fed
                if kill_sender:
                    asyncio.get_running_loop().call_later(outage_s / 2, lambda: fleet.children[SENDER].kill())
                figures |= {
                    f"{fault}: {name}": value for name, value in (await _outage(site, fleet, fault, outage_s)).items()
                }
                during = feed.fed - before
            found = await verdict(site, [])
            figures |= {f"{fault}: events meanwhile": during, f"{fault}: caught_up_s": found["caught_up_s"]}
            fired = fired and during > 0 and site.proxy.hit[fault] > 0
            await fleet.all_say(200, 60.0)
            ends = await ends_of(site, site.lines)
    return {
        "seed": seed, "outage_s": outage_s, "restarts": fleet.restarts, "sender_restarts": fleet.sender_restarts,
        "hit": site.proxy.hit, **figures, "fired": int(fired), **found, **ends,
        "sent_twice": sum(count - 1 for count in site.lines().values()),
        "too_many_unknown": int(ends["unknown"] > LOST_BY_A_SENDER_MAX * fleet.sender_restarts),
    }  # fmt: skip


async def _outage(site: Site, fleet: Fleet, fault: Fault, outage_s: float) -> dict[str, Any]:
    proxy: Proxy | None = site.proxy
    assert proxy is not None
    began = time.monotonic()
    proxy.inject(fault)
    try:
        red = {} if fault == "slow" else {"readiness_red_s": await fleet.all_say(503, RED_S_MAX)}
        await asyncio.sleep(max(0.0, outage_s - (time.monotonic() - began)))
        return red
    finally:
        proxy.inject("none")


async def all_at_work(site: Site, fleet: Fleet) -> None:
    """Wait until each worker has folded another event."""
    for child in fleet.workers():
        await at_work(site, child, int(await applied(site, child)) + 1)
