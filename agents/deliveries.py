"""Decisions in: each batch is handed to the deliverer; batches overlap, the barrier keeps the offsets honest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from app.stream.app import StreamApp
from app.stream.batch import RecordBatch
from schemas.topics import DECISIONS

BATCHES_MAX: Final = 16


def attach(app: StreamApp, deliver: Callable[[RecordBatch], Awaitable[None]]) -> Any:
    """Attach the agent that feeds `deliver`, at most `BATCHES_MAX` batches at a time."""
    slots = asyncio.Semaphore(BATCHES_MAX)
    tasks: set[asyncio.Task[None]] = set()

    async def run(batch: RecordBatch) -> None:
        try:
            await deliver(batch)
        except Exception as exc:
            app.fatal(f"delivering {batch!r} failed", exc)
        finally:
            slots.release()

    @app.agent(app.batched_topic(DECISIONS), name="deliveries", concurrency=1)
    async def deliveries(batches: Any) -> None:
        async for batch in batches:
            await slots.acquire()
            if not batch.begin():
                slots.release()
                continue
            task = asyncio.create_task(run(batch))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return deliveries
