"""Events in: the batches of a fetch are folded into their users' rows, and what follows from it is made durable."""

from __future__ import annotations

from typing import Any, Protocol

from app.stream.app import StreamApp
from app.stream.batch import RecordBatch


class Batches(Protocol):
    """Whoever takes the batches of a source topic: the engine, or what is wrapped around it."""

    source: str

    async def submit(self, *batches: RecordBatch) -> None:
        """Process the batches of a fetch; returns when they are processed."""


def attach(app: StreamApp, engine: Batches, *, concurrency: int = 1) -> Any:
    """Attach the agent that feeds `engine` from its source topic."""
    topic = app.batched_topic(engine.source)

    @app.agent(topic, name="profiles", concurrency=concurrency)
    async def profiles(fetches: Any) -> None:
        async for batches in fetches:
            try:
                await engine.submit(*batches)
            except Exception as exc:  # a bad event is a value; this is a defect, and going on would lose the batches
                app.fatal(f"processing {batches!r} failed", exc)

    return profiles
