from __future__ import annotations

import asyncio
import gc
import platform
import weakref

import psutil

from app.garbage import Sweep
from app.heap import trim


class Loop:
    """Holds itself, as an exception holds the frame that holds it."""

    def __init__(self) -> None:
        self.itself = self


async def test_cycles_that_have_grown_old_are_collected_all_the_same() -> None:
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)  # as a worker does
    sweep = Sweep(interval_s=0.05, collect_every=2)
    try:
        old = Loop()
        gc.collect()  # now it is of the oldest generation
        collected = asyncio.Event()
        weakref.finalize(old, collected.set)
        del old
        sweep.start()
        async with asyncio.timeout(10):
            await collected.wait()
    finally:
        await sweep.stop()
        gc.set_threshold(*thresholds)


async def test_memory_is_given_back_more_often_than_collected_and_neither_after_the_end() -> None:
    calls: list[str] = []
    collected = asyncio.Event()

    def collect() -> int:
        calls.append("collect")
        collected.set()
        return 0

    sweep = Sweep(interval_s=0.01, collect_every=3, collect=collect, give_back=lambda: calls.append("give back"))
    sweep.start()
    async with asyncio.timeout(10):
        await collected.wait()
    await sweep.stop()
    count = len(calls)
    assert calls[:4] == ["give back", "give back", "collect", "give back"]
    await asyncio.sleep(0.05)
    assert len(calls) == count


if platform.libc_ver()[0] == "glibc":

    def test_what_lies_free_between_blocks_that_stay_is_given_back() -> None:
        blocks = [bytes(100_000) for _ in range(1_000)]  # too small for glibc to take each from the kernel
        kept = blocks[::10]
        del blocks
        before = psutil.Process().memory_info().rss
        trim()
        assert before - psutil.Process().memory_info().rss > 30 << 20
        assert len(kept) == 100
