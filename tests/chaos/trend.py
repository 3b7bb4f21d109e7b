"""Whether processes grow: their memory, threads and open files, looked at now and then over a long run."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from app.children import Child

GROWTH_SHARE_MAX: Final = 0.03
GROWTH_MB_MAX: Final = 2.0
"""Allocators keep and give back a few pages from one minute to the next."""
FREE_SHARE_MAX: Final = 0.10
"""Where a process tells what of its memory is in use: so much may be free besides, left by the highest peak."""
BLOCKS_SHARE_MAX: Final = 0.08
"""A worker's rows remember what was sent to their users: in half an hour of a soak a hundred messages each, 5 %."""
MINUTES_MIN: Final = 10.0
"""A shorter life is all warming up."""
STORES: Final = ("nudge_state_memory_bytes", "nudge_row_memory_bytes")
MORE_MAX: Final = 3
"""Threads and open files more than before: a connection that is just being made, files of RocksDB being merged."""


@dataclass(frozen=True)
class Look:
    """A process at one moment: seconds since the beginning, resident MB, threads, open files and sockets.

    `store_mb` are RocksDB's write buffers and open files, which grow with rows until they are written, and the rows
    that are kept in memory, which grow to their limit. `blocks` of Python's objects and `native_mb` of the C library's
    heaps are in use; 0 of a process that does not tell.
    """

    at_s: float
    rss_mb: float
    threads: int
    handles: int
    store_mb: float = 0.0
    blocks: float = 0.0
    native_mb: float = 0.0

    @property
    def own_mb(self) -> float:
        """Memory without the stores'."""
        return self.rss_mb - self.store_mb

    @property
    def own_native_mb(self) -> float:
        """What is in use of the C library's heaps, without the stores'."""
        return self.native_mb - self.store_mb if self.native_mb else 0.0


@dataclass(frozen=True)
class Trend:
    """How a process changed over the last two thirds of its life; the first third is warming up.

    `grown_mb`, `more_threads` and `more_handles` compare the medians of the two thirds, and so do `more_blocks`, a
    share of those that were there, and `more_native_mb`. Stores are no part of these, nor of `mb_per_hour`.

    Resident memory grows by what a peak leaves free, too. So where a process tells what is in use (`tells`) a leak is
    what that grows by.
    """

    minutes: float
    rss_mb: float
    grown_mb: float
    mb_per_hour: float
    more_threads: float
    more_handles: float
    tells: bool = False
    more_blocks: float = 0.0
    more_native_mb: float = 0.0

    @property
    def leaks(self) -> bool:
        """Whether it lived long enough to tell, and grew by more than chance explains."""
        share = FREE_SHARE_MAX if self.tells else GROWTH_SHARE_MAX
        return self.minutes >= MINUTES_MIN and (
            self.grown_mb > share * self.rss_mb + GROWTH_MB_MAX
            or self.more_blocks > BLOCKS_SHARE_MAX
            or self.more_native_mb > GROWTH_SHARE_MAX * self.rss_mb + GROWTH_MB_MAX
            or self.more_threads > MORE_MAX
            or self.more_handles > MORE_MAX
        )


def trend(looks: Sequence[Look]) -> Trend:
    """The trend of one process's looks, oldest first, at even distances; at least six.

    Examples
    --------
    >>> trend([Look(60.0 * minute, 100.0 + minute, 5, 20) for minute in range(60)]).mb_per_hour
    60.0
    >>> trend([Look(60.0 * minute, 100.0 + minute % 2, 5, 20) for minute in range(60)]).leaks
    False
    """
    third = len(looks) // 3
    assert third >= 2, f"{len(looks)} looks tell nothing"
    middle, last = looks[third : 2 * third], looks[2 * third :]
    both = [*middle, *last]
    slope = statistics.linear_regression([look.at_s for look in both], [look.own_mb for look in both]).slope

    def of(looks: Sequence[Look], name: str) -> float:
        return statistics.median(getattr(look, name) for look in looks)

    def grown(name: str) -> float:
        return of(last, name) - of(middle, name)

    return Trend(
        minutes=round((looks[-1].at_s - looks[0].at_s) / 60, 1),
        rss_mb=round(of(last, "rss_mb"), 1),
        grown_mb=round(grown("own_mb"), 1),
        mb_per_hour=round(3600 * slope, 1),
        more_threads=grown("threads"),
        more_handles=grown("handles"),
        tells=of(both, "blocks") > 0,
        more_blocks=round(grown("blocks") / max(1.0, of(middle, "blocks")), 4),
        more_native_mb=round(grown("own_native_mb"), 1),
    )


@dataclass
class Watch:
    """Looks at the processes that `children` names, until it is cancelled; a restarted one begins anew.

    `metrics` asks a process for its metrics, by name; one may tell none.
    """

    children: Callable[[], Mapping[str, Child]]
    every_s: float
    metrics: Callable[[Child], Mapping[str, float]]
    lives: dict[tuple[str, int], list[Look]] = field(default_factory=dict)

    async def run(self) -> None:
        """Look, and look again."""
        began = time.monotonic()
        while True:
            for name, child in list(self.children().items()):
                told = await asyncio.to_thread(self.metrics, child)
                look = look_at(child, time.monotonic() - began, told)
                if look is not None:
                    self.lives.setdefault((name, child.pid), []).append(look)
            await asyncio.sleep(self.every_s)

    def trends(self) -> dict[str, Trend]:
        """By name: the trend of the longest life."""
        longest: dict[str, list[Look]] = {}
        for (name, _), looks in self.lives.items():
            if len(looks) > len(longest.get(name, ())):
                longest[name] = looks
        return {name: trend(looks) for name, looks in longest.items() if len(looks) >= 6}


def look_at(child: Child, at_s: float, told: Mapping[str, float]) -> Look | None:
    """A look, or None when the process has ended. `told` is what it says of its memory."""
    store_mb = sum(told.get(name, 0.0) for name in STORES) / 2**20
    native_mb = told.get("nudge_native_memory_bytes", 0.0) / 2**20
    try:
        process = psutil.Process(child.pid)
        with process.oneshot():
            rss_mb = process.memory_info().rss / 2**20
            return Look(
                at_s,
                round(rss_mb, 2),
                process.num_threads(),
                process.num_fds(),
                round(store_mb, 2),
                told.get("nudge_python_blocks", 0.0),
                0.0 if math.isnan(native_mb) else round(native_mb, 2),
            )
    except psutil.Error:
        return None


def figures(trends: Mapping[str, Trend]) -> dict[str, Any]:
    """As a recipe tells them; `leaks` counts the processes that grew."""
    told = {
        f"{name}: trend": f"{each.rss_mb} MB after {each.minutes} min, {each.grown_mb:+} MB "
        f"({each.mb_per_hour:+} an hour), {each.more_threads:+g} threads, {each.more_handles:+g} files"
        + (f"; in use {each.more_blocks:+.1%} of Python's, {each.more_native_mb:+} MB native" if each.tells else "")
        for name, each in trends.items()
    }
    return told | {"leaks": sum(each.leaks for each in trends.values())}
