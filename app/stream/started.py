"""A consumer beside the group, a producer beside the stream or an admin client, for as long as it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient


@asynccontextmanager
async def started(client: Any) -> AsyncIterator[Any]:
    """Start a client of aiokafka's; it is stopped at the end, also when it could not be started.

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
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
