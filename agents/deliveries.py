"""Decisions in: each batch is handed to the deliverer; batches overlap, the barrier keeps the offsets honest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from app.stream.app import StreamApp
from app.stream.batch import RecordBatch
from app.stream.inflight import InFlight
from schemas.topics import DECISIONS

RECORDS_MAX: Final = 8_000
BATCHES_MAX: Final = 2_000
"""Messages that are held back keep their batch under way. At low rates there is one in each: few batches would soon be
all that may be, and transactional messages behind them would wait, too."""


def attach(app: StreamApp, deliver: Callable[[RecordBatch], Awaitable[None]]) -> Any:
    """Attach the agent that feeds `deliver`, with at most `RECORDS_MAX` records under way."""
    room = InFlight(RECORDS_MAX, BATCHES_MAX)
    tasks: set[asyncio.Task[None]] = set()

    async def run(batch: RecordBatch) -> None:
        try:
            await deliver(batch)
        except Exception as exc:
            app.fatal(f"delivering {batch!r} failed", exc)
        finally:
            room.release(len(batch))

    @app.agent(app.batched_topic(DECISIONS), name="deliveries", concurrency=1)
    async def deliveries(fetches: Any) -> None:
        async for batches in fetches:
            for batch in batches:
                await room.acquire(len(batch))
                if not batch.begin():
                    room.release(len(batch))
                    continue
                task = asyncio.create_task(run(batch))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    return deliveries
