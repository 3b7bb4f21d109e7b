from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.stream.recovery import RowRecovery
from app.stream.transport import BatchedConsumer


class Flow:
    """As much of the app and its consumer as a recovery asks for; `during` runs in the middle of the restore."""

    def __init__(self, during: Callable[[Flow], None] = lambda flow: None) -> None:
        self.during = during
        self.consumer = self
        self.flow_control = SimpleNamespace(suspend=lambda: None, resume=lambda: None)
        self.on_rebalance_complete = SimpleNamespace(send=self._nothing)
        self._fetcher = SimpleNamespace(maybe_start=self._nothing)
        self.consumer_generation_id = 1
        self.flow_epoch = 0
        self.flowing = False
        self.restored = False

    async def _nothing(self) -> None: ...

    def stop_flow(self) -> None:
        self.flow_epoch += 1
        self.flowing = False

    def resume_flow(self) -> None:
        self.flowing = True

    def resume_partitions(self, partitions: Any) -> None: ...

    def assignment(self) -> set[Any]:
        return set()

    def on_rebalance_end(self) -> None: ...

    async def restore_tables(self, interrupted: Callable[[], bool]) -> bool:
        self.restored = True
        self.during(self)
        return not interrupted()

    async def seek_to_start(self) -> dict[Any, int]:
        return {}

    async def before_resume(self, offsets: Any) -> None: ...


class Recovery:
    """The recovery's sequence without Faust's service around it."""

    on_rebalance = RowRecovery.on_rebalance
    _recover = RowRecovery._recover

    def __init__(self, flow: Flow) -> None:
        self.app = flow
        self.tables = SimpleNamespace(on_actives_ready=lambda: None, on_standbys_ready=lambda: None)
        self.signal_recovery_start, self.completed = asyncio.Event(), asyncio.Event()
        self.should_stop = False

    async def wait_for_stopped(self, signal: asyncio.Event) -> bool:
        await signal.wait()
        return False

    async def assigned(self) -> None:
        await self.on_rebalance(set(), set(), set(), 1)
        self.signal_recovery_start.clear()  # as the task does that runs `_recover`


async def test_after_the_restore_events_flow_again() -> None:
    flow = Flow()
    recovery = Recovery(flow)
    await recovery.assigned()
    await recovery._recover(1)
    assert flow.flowing
    assert recovery.completed.is_set()


async def test_events_do_not_flow_when_the_partitions_were_revoked_during_the_restore() -> None:
    flow = Flow(during=Flow.stop_flow)
    recovery = Recovery(flow)
    await recovery.assigned()
    await recovery._recover(1)
    assert not flow.flowing
    assert not recovery.completed.is_set()


async def test_nothing_is_restored_when_the_partitions_were_revoked_before_it_began() -> None:
    flow = Flow()
    recovery = Recovery(flow)
    await recovery.assigned()
    flow.stop_flow()
    await recovery._recover(1)
    assert not flow.restored


class Ended(Exception):
    """The process would have ended."""


@pytest.mark.parametrize("reason", [asyncio.CancelledError(), RuntimeError("broken")])
async def test_a_restore_that_fails_ends_the_process(reason: BaseException) -> None:
    """Also when what failed looks like the task's own end, which nobody has asked for."""

    async def failing(_generation: int) -> None:
        raise reason

    def fatal(what: str, exc: BaseException) -> None:
        raise Ended(f"{what}: {exc!r}")

    recovery = Recovery(Flow())
    recovery._recover = failing  # type: ignore[method-assign]
    recovery.app.fatal = fatal  # type: ignore[attr-defined]
    await recovery.assigned()
    recovery.signal_recovery_start.set()
    with pytest.raises(Ended, match="restore failed"):
        await RowRecovery._restart_recovery.fun(recovery)


async def test_a_recovery_that_is_cancelled_is_so() -> None:
    recovery = Recovery(Flow(during=lambda flow: task.cancel()))
    recovery.app.seek_to_start = asyncio.Event().wait  # type: ignore[method-assign,assignment]
    await recovery.assigned()
    recovery.signal_recovery_start.set()
    task = asyncio.create_task(RowRecovery._restart_recovery.fun(recovery))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_gap_is_not_sought_again_once_the_partition_was_positioned_anew() -> None:
    sought: list[int] = []

    async def call_thread(_function: Any, _tp: Any, offset: int) -> None:
        sought.append(offset)

    thread = SimpleNamespace(call_thread=call_thread, seek_to=None)
    gaps = SimpleNamespace(check=lambda tp, records: ([], 7))
    consumer = SimpleNamespace(gaps=gaps, _fetching=asyncio.Lock(), flow_active=True, flow_epoch=2, _thread=thread)
    tp = SimpleNamespace(topic="events", partition=0)
    await BatchedConsumer._read_gaps_again(consumer, tp, [], 1)  # type: ignore[arg-type]
    assert sought == []
    await BatchedConsumer._read_gaps_again(consumer, tp, [], 2)  # type: ignore[arg-type]
    assert sought == [7]
