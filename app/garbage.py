"""Memory that a process no longer needs, given back at long intervals.

A worker lets the collector look at young objects only, and seldom: a full collection by the counts that it sets comes
after hours. But what a lost connection leaves behind, exceptions and the frames that they hold, are cycles that no
young collection finds once they are old. Without this they would stay until then.

And what is free, glibc keeps: the pages between blocks that stay. It gives them back when it is asked to. (To fix the
size from which it takes blocks from the kernel would keep its heap dense, too, but costs up to a quarter more CPU an
event: fetches and batches are such blocks.)
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Callable
from typing import Final

import structlog

from app.heap import trim
from app.stream.background import Background

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 60.0
COLLECT_EVERY: Final = 5
"""A collection takes 20 to 40 ms of CPU: with what lives, and what a minute and a half of a broken network leaves."""


class Sweep(Background):
    """Gives back what is free every `interval_s`, and collects everything at each `collect_every`th time."""

    task_name = "garbage"

    def __init__(
        self,
        *,
        interval_s: float = INTERVAL_S,
        collect_every: int = COLLECT_EVERY,
        collect: Callable[[], int] = gc.collect,
        give_back: Callable[[], None] = trim,
    ) -> None:
        self._interval_s = interval_s
        self._collect_every = collect_every
        self._collect = collect
        self._give_back = give_back

    async def _run(self) -> None:
        for turn in itertools.count(1):
            await asyncio.sleep(self._interval_s)
            began_s = time.thread_time()
            found = self._collect() if turn % self._collect_every == 0 else 0
            self._give_back()
            log.debug("memory_given_back", collected=found, cpu_s=round(time.thread_time() - began_s, 3))
