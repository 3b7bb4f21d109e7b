"""Full garbage collections of a worker, at long intervals.

A worker lets the collector look at young objects only, and seldom: a full collection by the counts that it sets comes
after hours. But what a lost connection leaves behind, exceptions and the frames that they hold, are cycles that no
young collection finds once they are old. Without this they would stay until then.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Final

import structlog

from app.stream.background import Background

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 300.0
"""A collection takes 20 to 40 ms of CPU: with what lives, and what a minute and a half of a broken network leaves."""


class Sweep(Background):
    """Collects everything every `interval_s`, for as long as the process lives."""

    task_name = "garbage"

    def __init__(self, *, interval_s: float = INTERVAL_S, collect: Callable[[], int] = gc.collect) -> None:
        self._interval_s = interval_s
        self._collect = collect

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            began_s = time.thread_time()
            found = self._collect()
            log.debug("garbage_collected", objects=found, cpu_s=round(time.thread_time() - began_s, 3))
