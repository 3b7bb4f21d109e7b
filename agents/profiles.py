"""Events in: each batch is folded into its users' rows, and what follows from it is made durable."""

from __future__ import annotations

from typing import Any, Protocol

from app.stream.app import StreamApp
from app.stream.batch import RecordBatch


class Batches(Protocol):
    """Whoever takes the batches of a source topic: the engine, or what is wrapped around it."""

    source: str

    async def submit(self, batch: RecordBatch) -> None:
        """Process a batch; returns when it is processed."""


def attach(app: StreamApp, engine: Batches, *, concurrency: int = 1) -> Any:
    """Attach the agent that feeds `engine` from its source topic."""
    topic = app.batched_topic(engine.source)

    @app.agent(topic, name="profiles", concurrency=concurrency)
    async def profiles(batches: Any) -> None:
        async for batch in batches:
            try:
                await engine.submit(batch)
            except Exception as exc:  # a bad event is a value; this is a defect, and going on would lose the batch
                app.fatal(f"processing {batch!r} failed", exc)

    return profiles
