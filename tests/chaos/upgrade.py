"""Two workers and a sender roll from an older build to this one, and back where the rows allow it, while events flow.

Both builds are wheels, each installed in an environment of its own. Where the older one does not read the newer rows it
must say so and end, and no event may be lost by the attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from app.children import Child
from tests.chaos.ends import ends_of
from tests.chaos.harness import ECHO, applied, at_work, feeding, verdict
from tests.support.builds import Build, before_the_newest_rows, commit_of, install
from tests.support.site import Site, eventually

SENDER: Final = "post"
WORKERS: Final = ("one", "two")
FATAL: Final = 70
CONVERTED: Final = ("affinity",)
"""Fields that rows of version 3 hold in another form: rounded once, when a row of version 2 is read, and not with every
event as in the oracle, which folds all of them as this build does. Whoever makes a version 4 looks at this again."""


class Fleet:
    """Processes by name; each restart is on the same disk, by whichever build."""

    def __init__(self, site: Site) -> None:
        self._site, self._stack = site, contextlib.ExitStack()
        self.children: dict[str, Child] = {}

    def start(self, name: str, build: Build) -> Child:
        """Start a process of a build."""
        settings = {"NUDGE_POLICY": str(ECHO)}
        if self._site.real:  # worth nothing on the embedded broker
            settings["NUDGE_INSTANCE_ID"] = name
        command = "sender" if name == SENDER else "worker"
        child: Child = self._stack.enter_context(self._site.process(command, name, python=build.python, **settings))
        self.children[name] = child
        return child

    async def replace(self, name: str, build: Build) -> None:
        """SIGTERM, the other build on the same disk, and wait until it is ready and at work."""
        code = await asyncio.to_thread(self.children[name].stop, 60.0)
        assert code == 0, f"{name} ended with {code}: {self.children[name].log_tail()}"
        child = self.start(name, build)
        await self._site.ready(child)
        if name != SENDER:
            await at_work(self._site, child, int(await applied(self._site, child)) + 1)

    def close(self) -> None:
        """Kill what is left."""
        self._stack.close()


async def run(site: Site, *, seed: int = 1, rate: int = 300, old: str = "") -> dict[str, Any]:
    """Roll forward, back and forward again, one process at a time.

    Parameters
    ----------
    old
        The commit to come from; else the last one whose rows have an older version.
    """
    commit = commit_of(old) if old else before_the_newest_rows()
    older, newer = await asyncio.gather(
        asyncio.to_thread(install, commit, site.directory / "older"),
        asyncio.to_thread(install, "", site.directory / "newer"),
    )
    alike = older.row_version == newer.row_version
    fleet = Fleet(site)
    rolled = refused = 0
    by_older = 0.0
    try:
        for name in (*WORKERS, SENDER):
            await site.ready(fleet.start(name, older))
        async with feeding(site, seed, rate) as feed:
            for name in WORKERS:
                await at_work(site, fleet.children[name], rate)
                by_older += await applied(site, fleet.children[name])
            legs = [newer, older, newer] if alike else [newer]
            for build in legs:
                for name in (*WORKERS, SENDER):
                    await fleet.replace(name, build)
                    rolled += 1
            if not alike:
                refused = await _refuses(site, fleet, older)
                await site.ready(fleet.start(WORKERS[0], newer))
            workers = [fleet.children[name] for name in WORKERS]
            for child in workers:
                await at_work(site, child, int(await applied(site, child)) + 1)
        found = await verdict(site, workers, apart_from=() if alike else CONVERTED)
        ends = await ends_of(site, site.lines)
    finally:
        fleet.close()
    return {
        "seed": seed, "from": older.commit, "row_versions": [older.row_version, newer.row_version], "events": feed.fed,
        "by_the_older": int(by_older), "replaced": rolled, "refused_newer_rows": refused,
        "fired": int(by_older > 0 and (refused > 0 or alike)),
        "sent_twice": sum(count - 1 for count in site.lines().values()), **ends, **found,
    }  # fmt: skip


async def _refuses(site: Site, fleet: Fleet, older: Build) -> int:
    """1 when a worker of the older build ends itself over newer rows, and says what is wrong with them."""
    await asyncio.to_thread(fleet.children[WORKERS[0]].stop, 60.0)
    child = fleet.start(WORKERS[0], older)

    async def ended() -> bool:
        return child.returncode is not None

    await eventually(ended, "the older worker meets newer rows and ends itself", 60.0)
    return int(child.returncode == FATAL and "row version" in site.log(child))
