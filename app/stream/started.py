"""A consumer beside the group, or a producer beside the stream, for as long as it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def started(client: Any) -> AsyncIterator[Any]:
    """Start an `AIOKafkaConsumer` or `AIOKafkaProducer`; it is stopped at the end, also when it could not be started.

    aiokafka's consumer without a group, stopped before the task that it has begun had a turn, raises `CancelledError`:
    whoever stops it looks cancelled, dies silently, and its connections stay open. So that task gets its turn first.

    Raises
    ------
    aiokafka.errors.KafkaError
        When the broker cannot be reached.
    """
    try:
        await client.start()
        await asyncio.sleep(0)
        yield client
    finally:
        await client.stop()
