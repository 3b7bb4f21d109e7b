"""Ends a worker that is wedged, and says why: nothing moves though work waits, or the event loop itself is stuck.

A broker that is away is no reason: while the coordinator does not answer, nothing can move. Nor is a suspension: what
stood still with the clock is looked at anew.
"""

from __future__ import annotations

import asyncio
import faulthandler
import sys
import threading
import traceback
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog

from app.stream.lease import boot_time

log = structlog.get_logger(__name__)

BEAT_S: Final = 1.0
_PAUSE_BEATS: Final = 5
"""A look that comes so many beats late shows that the process was suspended, not that its work stood still."""
_TASKS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a look shows.

    Parameters
    ----------
    answered
        The coordinator answers us: what stands still does so by our own fault.
    waiting
        What work there is, in words; empty when there is none.
    progress
        Something that changes whenever anything moves.
    """

    answered: bool
    waiting: str
    progress: Hashable


class Stillness:
    """How long nothing has moved though it should have. Pure: the time is an argument.

    Examples
    --------
    >>> still = Stillness(limit_s=3.0)
    >>> [still.look(float(at), Vitals(True, "5 records wait", progress=7)) for at in range(4)]
    [None, None, None, '5 records wait, and nothing has moved for 3 s']
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._progress: Hashable = None
        self._since = 0.0
        self._looked_at: float | None = None

    def look(self, now: float, vitals: Vitals) -> str | None:
        """Take a look; returns why the worker is wedged, if it is."""
        paused = self._looked_at is None or now - self._looked_at > _PAUSE_BEATS * BEAT_S
        self._looked_at = now
        if paused or not vitals.answered or not vitals.waiting or vitals.progress != self._progress:
            self._progress, self._since = vitals.progress, now
            return None
        if now - self._since < self.limit_s:
            return None
        return f"{vitals.waiting}, and nothing has moved for {now - self._since:.0f} s"


class Blockage:
    """How long the event loop has not beaten. Pure: the time is an argument."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._beats = -1
        self._since = 0.0
        self._looked_at: float | None = None

    def look(self, now: float, beats: int) -> str | None:
        """Take a look from outside of the event loop; returns why the worker is wedged, if it is."""
        paused = self._looked_at is None or now - self._looked_at > _PAUSE_BEATS * BEAT_S
        self._looked_at = now
        if paused or beats != self._beats:
            self._beats, self._since = beats, now
            return None
        if now - self._since < self.limit_s:
            return None
        return f"the event loop has been blocked for {now - self._since:.0f} s"


class Watchdog:
    """Looks every second: at the vitals from the event loop, at the event loop from a thread.

    Parameters
    ----------
    vitals
        Asked in the event loop.
    fatal
        Ends the process; called after all stacks have been written to standard error.
    stall_s, block_s
        How long nothing may move, and how long the event loop may be blocked.
    others
        Event loops of other threads, whose tasks are written too.
    """

    def __init__(
        self,
        vitals: Callable[[], Vitals],
        fatal: Callable[[str], NoReturn],
        *,
        stall_s: float,
        block_s: float,
        others: Callable[[], Iterable[asyncio.AbstractEventLoop]] = lambda: (),
    ) -> None:
        self._vitals = vitals
        self._fatal = fatal
        self._others = others
        self._stillness = Stillness(stall_s)
        self._blockage = Blockage(block_s)
        self._beats = 0
        self._stopped = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; call it in the event loop."""
        self._task = asyncio.create_task(self._beat(), name="watchdog")
        threading.Thread(target=self._guard, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        while not self._stopped.is_set():
            self._beats += 1
            try:
                why = self._stillness.look(boot_time(), self._vitals())
            except Exception:  # a look that fails says nothing of the worker, and must not end the beat
                log.exception("watchdog_look_failed")
                why = None
            if why is not None:
                try:
                    self._show_tasks()
                finally:
                    self._end(why)
            await asyncio.sleep(BEAT_S)

    def _show_tasks(self) -> None:
        """What each task waits for, on standard error."""
        for loop in (asyncio.get_running_loop(), *self._others()):
            for task in list(asyncio.all_tasks(loop))[:_TASKS_MAX]:
                task.print_stack(limit=8, file=sys.stderr)

    def _guard(self) -> None:
        while not self._stopped.wait(BEAT_S):
            why = self._blockage.look(boot_time(), self._beats)
            if why is not None:
                self._end(why)

    def _end(self, why: str) -> NoReturn:
        try:
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
        except (OSError, ValueError, AttributeError):  # standard error is no file
            traceback.print_stack(file=sys.stderr)
        self._fatal(f"the worker is wedged: {why}")
