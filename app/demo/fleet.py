"""The demo's processes: workers and a sender, started as anybody would start them, and never left behind."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from app.children import Child
from app.embedded import HOST, free_port

READY_S_MAX: Final = 60.0
_POLL_S: Final = 0.1


class ChildFailed(RuntimeError):
    """A process ended, or did not become ready; the message holds the end of its log."""

    def __init__(self, child: Child, problem: str) -> None:
        super().__init__(f"the {child.name} {problem}; the end of its log:\n{child.log_tail().rstrip()}")


class Fleet:
    """Our processes and their health endpoints.

    Parameters
    ----------
    env
        NUDGE_* variables that all of them get.
    directory
        Where each keeps its state and log.
    """

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUDGE_")}
        self._env = inherited | dict(env)
        self._directory = directory
        self._children: list[tuple[Child, int]] = []
        self._extras: list[Child] = []

    def start(self, command: str, name: str, **env: str) -> None:
        """Start ``nudge COMMAND`` as a process called `name`, with more variables."""
        port = free_port()
        # No static membership: a first join takes 3 s longer with it on the embedded broker.
        own = {"NUDGE_DATA_DIR": str(self._directory / name), "NUDGE_HTTP_PORT": str(port)}
        child = Child(
            name,
            [sys.executable, "-m", "app.cli", command],
            env=self._env | own | env,
            log_path=self._directory / f"{name}.log",
        )
        self._children.append((child, port))

    def urls(self) -> list[str]:
        """The health endpoints of the processes that were started."""
        return [f"http://{HOST}:{port}" for _, port in self._children]

    def start_extra(self, command: str, **env: str) -> Child:
        """Start ``nudge COMMAND`` beside the others: it is stopped with them, but nothing waits for it, and its end
        is no failure.
        """
        child = Child(
            command,
            [sys.executable, "-m", "app.cli", command],
            env=self._env | env,
            log_path=self._directory / f"{command}.log",
        )
        self._extras.append(child)
        return child

    async def until_ready(self) -> None:
        """Return when every process says that it is ready. Raises `ChildFailed`."""
        deadline = time.monotonic() + READY_S_MAX
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            for child, port in self._children:
                while not await _is_ready(session, port):
                    self.check()
                    if time.monotonic() > deadline:
                        raise ChildFailed(child, f"was not ready after {READY_S_MAX:.0f} s")
                    await asyncio.sleep(_POLL_S)

    def check(self) -> None:
        """Raise `ChildFailed` when a process has ended."""
        for child, _ in self._children:
            if child.returncode is not None:
                raise ChildFailed(child, f"ended with status {child.returncode}")

    async def watch(self) -> None:
        """Check for ever."""
        while True:
            self.check()
            await asyncio.sleep(_POLL_S)

    async def gauges(self, *names: str) -> dict[str, float]:
        """Sums over all processes and labels of some metrics; a process that does not answer is left out."""
        sums = dict.fromkeys(names, 0.0)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            for _, port in self._children:
                for name, value in await _scrape(session, port):
                    if name in sums:
                        sums[name] += value
        return sums

    def worker_rss_bytes(self) -> int | None:
        """The largest resident memory of a worker; None where the system does not tell."""
        sizes = [_rss_bytes(child.pid) for child, _ in self._children if child.name.startswith("worker")]
        return max((size for size in sizes if size is not None), default=None)

    async def stop(self, grace_s: float = 10.0) -> None:
        """End all processes at once: each drains, commits and leaves; what does not end in time is killed."""
        everything = [*(child for child, _ in self._children), *self._extras]
        await asyncio.gather(*(asyncio.to_thread(child.stop, grace_s) for child in everything))

    def kill(self) -> None:
        """End what still runs, without asking."""
        for child in (*(child for child, _ in self._children), *self._extras):
            child.stop(grace_s=0.0)


async def _is_ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://{HOST}:{port}/readyz") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _scrape(session: aiohttp.ClientSession, port: int) -> list[tuple[str, float]]:
    try:
        async with session.get(f"http://{HOST}:{port}/metrics") as response:
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return []
    return [(sample.name, sample.value) for family in text_string_to_metric_families(text) for sample in family.samples]


def _rss_bytes(pid: int) -> int | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
