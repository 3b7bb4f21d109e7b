from __future__ import annotations

import asyncio
import gc
import weakref

from app.garbage import Sweep


class Loop:
    """Holds itself, as an exception holds the frame that holds it."""

    def __init__(self) -> None:
        self.itself = self


async def test_cycles_that_have_grown_old_are_collected_all_the_same() -> None:
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)  # as a worker does
    sweep = Sweep(interval_s=0.05)
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


async def test_nothing_is_collected_after_the_end() -> None:
    calls: list[int] = []
    collected = asyncio.Event()

    def collect() -> int:
        calls.append(1)
        collected.set()
        return 0

    sweep = Sweep(interval_s=0.01, collect=collect)
    sweep.start()
    async with asyncio.timeout(10):
        await collected.wait()
    await sweep.stop()
    count = len(calls)
    await asyncio.sleep(0.05)
    assert len(calls) == count
