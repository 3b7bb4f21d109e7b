"""A lane: the way to one provider, with a bounded number of messages on it at a time, urgent ones first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from app.sender.providers.base import Message, Outcome, Provider, Unknown
from app.sender.recorder import Recorder
from app.sender.throttle import Throttle, ThrottleSettings

log = structlog.get_logger(__name__)

URGENT_SHARE: Final = 8
"""One place of so many is for urgent messages only: slow promotional ones cannot take them all."""


class Stopping(Exception):
    """The lane lets nobody on any more."""


class Lane:
    """Who may ask the provider next.

    Parameters
    ----------
    timeout_s
        Bound on one attempt, above the provider's own timeouts: what exceeds it is a provider that hangs.
    throttle
        Rate, pauses and circuit breaker, for the whole lane.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        *,
        concurrency: int,
        timeout_s: float,
        throttle: ThrottleSettings,
        recorder: Recorder,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._provider = provider
        self._places = concurrency
        self._places_promotional = concurrency - concurrency // URGENT_SHARE
        self._timeout_s = timeout_s
        self._throttle = Throttle(throttle)
        self._recorder = recorder
        self._sleep = sleep
        self._monotonic_s = monotonic_s
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._busy = 0
        self._waker: asyncio.Task[None] | None = None
        self._stopping = False

    @asynccontextmanager
    async def turn(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Wait for a place, the rate, and the end of a pause. Raises `Stopping`."""
        if self._stopping:
            raise Stopping
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (not urgent, next(self._order), granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def stop(self) -> None:
        """Turn away all who wait; who has a place keeps it."""
        self._stopping = True
        waiting, self._waiting = self._waiting, []
        for _, _, granted in waiting:
            if not granted.done():
                granted.set_exception(Stopping())

    def resume(self) -> None:
        """The inverse of `stop`."""
        self._stopping = False

    def _leave(self) -> None:
        self._busy -= 1
        self._grant()

    def _grant(self) -> None:
        """Let on as many as may go now; come back when the next one may."""
        while self._waiting:
            promotional, _, granted = self._waiting[0]
            if granted.done():  # cancelled while it waited
                heapq.heappop(self._waiting)
                continue
            if self._busy >= (self._places_promotional if promotional else self._places):
                return
            now_s = self._monotonic_s()
            wait_s = self._throttle.wait_s(now_s, self._busy)
            if wait_s > 0:
                if wait_s != math.inf and self._waker is None:
                    self._waker = asyncio.create_task(self._wake(wait_s))
                return
            heapq.heappop(self._waiting)
            self._throttle.begin(now_s)
            self._busy += 1
            granted.set_result(None)

    async def _wake(self, wait_s: float) -> None:
        await self._sleep(wait_s)
        self._waker = None
        self._grant()

    async def send(self, message: Message) -> Outcome:
        """Ask the provider once; call it within a `turn`. Never raises for what the provider does."""
        started_s = self._monotonic_s()
        outcome = await self._ask(message)
        ended_s = self._monotonic_s()
        self._recorder.took(self.name, ended_s - started_s)
        was_broken = self._throttle.broken
        self._throttle.ended(outcome, ended_s)
        if self._throttle.broken != was_broken:
            log.warning("circuit_breaker", provider=self.name, open=not was_broken)
            self._recorder.broken(self.name, self._throttle.broken)
        return outcome

    async def _ask(self, message: Message) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._provider.send(message)
        except TimeoutError:
            return Unknown("timeout")
        except Exception as exc:  # a provider's defect must not end the batch of everybody else
            log.warning("provider_raised", provider=self.name, error=type(exc).__name__)
            return Unknown("provider_raised")

    async def close(self) -> None:
        """Close the provider."""
        if self._waker is not None:
            self._waker.cancel()
        await self._provider.close()
