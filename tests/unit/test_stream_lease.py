from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.produce import ProduceRequest

from app.stream.consumer_thread import keep_lease
from app.stream.lease import Lease, LeaseLost
from app.stream.producer import _ask_before_producing

SESSION_S = 6.0
UNKNOWN_MEMBER = 25
REBALANCING = 27


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Coordinator:
    """Answers requests with `code`, after `takes_s`."""

    def __init__(self, clock: Clock, code: int = 0, takes_s: float = 0.0) -> None:
        self.clock, self.code, self.takes_s = clock, code, takes_s

    async def _send_req(self, request: Any) -> Any:
        self.clock.now += self.takes_s
        return SimpleNamespace(error_code=self.code)


async def beat(lease: Lease, clock: Clock, **answer: Any) -> None:
    coordinator = Coordinator(clock, **answer)
    keep_lease(coordinator, lease)
    await coordinator._send_req(HeartbeatRequest("group", 1, "member"))


def test_nobody_has_a_lease_before_the_coordinator_has_answered() -> None:
    assert not Lease(SESSION_S, Clock()).valid


async def test_a_lease_runs_from_the_sending_of_the_heartbeat_not_from_its_answer() -> None:
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    await beat(lease, clock, takes_s=2.0)
    clock.now = 105.9
    assert lease.valid
    clock.now = 106.0
    assert not lease.valid


async def test_a_rebalance_in_progress_is_the_answer_to_a_member() -> None:
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    await beat(lease, clock, code=REBALANCING)
    assert lease.valid


async def test_silence_is_counted_from_the_sending_of_what_was_answered_last() -> None:
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    assert lease.silent_s > SESSION_S
    await beat(lease, clock, takes_s=2.0)
    assert lease.silent_s == 2.0
    clock.now += 3.0
    assert lease.silent_s == 5.0


async def test_a_lease_that_ran_out_is_confirmed_by_the_next_answer() -> None:
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    lease.renew(clock.now)
    clock.now += 3 * SESSION_S
    asking = asyncio.create_task(lease.confirm())
    await asyncio.sleep(0)
    assert not asking.done()
    await beat(lease, clock)
    await asyncio.wait_for(asking, 5.0)


async def test_a_worker_that_is_no_member_any_more_loses_the_lease_until_it_has_joined_anew() -> None:
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    lease.renew(clock.now)
    await beat(lease, clock, code=UNKNOWN_MEMBER)
    with pytest.raises(LeaseLost, match="took our partitions away"):
        await lease.confirm()
    lease.renew(clock.now)
    await lease.confirm()


async def test_a_produce_request_is_not_written_before_it_is_permitted() -> None:
    sent: list[str] = []
    permitted = asyncio.Event()

    class Client:
        async def ready(self, _node: int, *, group: Any) -> bool:
            return True

        async def send(self, _node: int, request: Any, *, group: Any) -> None:
            sent.append(type(request).__name__)

    async def permission() -> None:
        await permitted.wait()

    client = Client()
    _ask_before_producing(client, permission)
    producing = asyncio.create_task(client.send(0, ProduceRequest(None, -1, 1000, [])))  # type: ignore[call-arg]
    await client.send(0, HeartbeatRequest("group", 1, "member"))  # type: ignore[call-arg]
    assert sent == ["HeartbeatRequest"]
    permitted.set()
    await producing
    assert sent == ["HeartbeatRequest", "ProduceRequest"]
