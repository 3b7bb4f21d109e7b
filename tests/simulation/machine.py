"""Processes in virtual time: each an event loop of its own, run one handle at a time in a seeded order.

A machine can be killed between any two handles (nothing of it runs again, no `finally` either) or suspended, as SIGKILL
and SIGSTOP do. Nothing here waits: when no machine has work, the time jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio import events
from collections.abc import Callable
from random import Random
from typing import Any

HANDLES_MAX = 6
"""Handles that a machine may run before another one gets its turn."""
HANDLE_S_MAX = 50e-6


class Died(BaseException):
    """The process that ran this code is dead."""


class Machine(asyncio.BaseEventLoop):
    """A process: an event loop that the world turns."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.alive = True
        self.suspended_until = 0.0
        self.errors: list[str] = []
        self.set_exception_handler(self._on_error)

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if self.alive and not isinstance(exc, Died):
            self.errors.append(f"{context.get('message')}: {exc!r}")

    def __del__(self, _warn: Any = None) -> None:
        """Nothing is open that would have to be closed."""

    def time(self) -> float:
        return self.world.now

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def _check_closed(self) -> None:
        """A dead machine's coroutines may still be collected, which schedules what nobody runs."""

    def next_at(self) -> float | None:
        """When there is something to run; None when never."""
        if not self.alive:
            return None
        scheduled: list[Any] = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if self._ready:
            at = self.world.now
        elif scheduled:
            at = scheduled[0]._when
        else:
            return None
        return max(at, self.suspended_until)

    def turn(self, handles: int) -> None:
        """Run the next handles."""
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._when <= self.world.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        events._set_running_loop(self)
        try:
            while ready and handles and self.alive:
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                    handles -= 1
        finally:
            events._set_running_loop(None)

    def kill(self) -> None:
        """Nothing of this process runs again."""
        self.alive = False
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.world.graveyard.append(task)  # collected, its `finally` clauses would run
        self._ready.clear()
        self._scheduled.clear()

    def suspend(self, seconds: float) -> None:
        """Stop the process; what arrives meanwhile waits for it."""
        self.suspended_until = max(self.suspended_until, self.world.now + seconds)


class World:
    """All machines and the time."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.machines: list[Machine] = []
        self.steps = 0
        self.graveyard: list[asyncio.Task[Any]] = []
        self.outside = self.machine("outside")

    def machine(self, name: str) -> Machine:
        """A new process."""
        machine = Machine(self, name)
        self.machines.append(machine)
        return machine

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function outside of all processes."""
        self.outside.call_at(self.now + seconds, function)

    def run(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Turn the machines until `done`; False when that is not within `limit_s` of virtual time."""
        end, rng = self.now + limit_s, self.rng
        while not done():
            if self.now > end:
                return False
            due = [(at, machine) for machine in self.machines if (at := machine.next_at()) is not None]
            ready = [machine for at, machine in due if at <= self.now]
            if not ready:
                if not due:
                    return False
                self.now = min(at for at, _ in due)
                continue
            machine = ready[rng.randrange(len(ready))] if len(ready) > 1 else ready[0]
            machine.turn(rng.randint(1, HANDLES_MAX))
            self.steps += 1
            self.now += rng.random() * HANDLE_S_MAX
            if not machine.alive:
                self.machines.remove(machine)
        return True

    def close(self) -> None:
        """Let go of everything; what coroutines do when they are closed no longer matters."""
        for machine in self.machines:
            machine.kill()
        for task in self.graveyard:
            with contextlib.suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]
