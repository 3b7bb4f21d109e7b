"""A lane: the way to one provider, with a bounded number of messages on it at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from app.sender.providers.base import Message, Outcome, Provider, Retry, Unknown
from app.sender.recorder import Recorder

log = structlog.get_logger(__name__)


class Lane:
    """Bounds concurrency and the time of an attempt; a ``Retry-After`` stops the whole lane, not one message.

    Parameters
    ----------
    timeout_s
        Bound on one attempt, above the provider's own timeouts: what exceeds it is a provider that hangs.
    pause_ms_max
        Bound on the pause that a ``Retry-After`` may impose on everybody.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        *,
        concurrency: int,
        timeout_s: float,
        pause_ms_max: int,
        recorder: Recorder,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._provider = provider
        self._places = asyncio.Semaphore(concurrency)
        self._timeout_s = timeout_s
        self._pause_ms_max = pause_ms_max
        self._recorder = recorder
        self._sleep = sleep
        self._monotonic_s = monotonic_s
        self._resume_s = float("-inf")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a place, and for the end of a pause."""
        async with self._places:
            while (wait_s := self._resume_s - self._monotonic_s()) > 0:
                await self._sleep(wait_s)
            yield

    async def send(self, message: Message) -> Outcome:
        """Ask the provider once; call it within a `turn`. Never raises for what the provider does."""
        started_s = self._monotonic_s()
        outcome = await self._ask(message)
        self._recorder.took(self.name, self._monotonic_s() - started_s)
        if isinstance(outcome, Retry) and outcome.after_ms:
            pause_ms = min(outcome.after_ms, self._pause_ms_max)
            self._resume_s = max(self._resume_s, self._monotonic_s() + pause_ms / 1_000)
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
        await self._provider.close()
