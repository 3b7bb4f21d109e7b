from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.group_coordinator import NoGroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaConnectionError

from app.stream.started import started


class Consumer:
    """As much of aiokafka's consumer without a group as starts and stops a task."""

    def __init__(self, failing: bool = False) -> None:
        self._failing = failing
        self.stopped = False

    async def start(self) -> None:
        if self._failing:
            raise KafkaConnectionError("nobody there")
        client = SimpleNamespace(cluster=ClusterMetadata())
        self._coordinator: NoGroupCoordinator | None = NoGroupCoordinator(client, SubscriptionState())

    async def stop(self) -> None:
        if not self._failing:
            await self._coordinator.close()
        self.stopped = True


async def test_a_consumer_that_is_needed_for_no_moment_does_not_look_cancelled() -> None:
    consumer = Consumer()
    async with started(consumer):
        pass
    assert consumer.stopped


async def test_aiokafka_itself_still_raises_then() -> None:
    """Where this fails, `started` need not wait any more."""
    consumer = Consumer()
    await consumer.start()
    with pytest.raises(asyncio.CancelledError):
        await consumer.stop()


async def test_a_consumer_that_could_not_be_started_is_stopped() -> None:
    consumer = Consumer(failing=True)
    with pytest.raises(KafkaConnectionError):
        async with started(consumer):
            pytest.fail("it has not started")
    assert consumer.stopped


async def test_an_admin_client_that_could_not_be_started_is_closed() -> None:
    closed = []

    class Admin(AIOKafkaAdminClient):
        def __init__(self) -> None: ...

        async def start(self) -> None:
            raise KafkaConnectionError("nobody there")

        async def close(self) -> None:
            closed.append(self)

    with pytest.raises(KafkaConnectionError):
        async with started(Admin()):
            pytest.fail("it has not started")
    assert len(closed) == 1
