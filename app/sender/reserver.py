"""Reservations just before the first attempt, those that are asked for together in one write.

A kill turns what is reserved into `unknown` where it is promotional: so no more is reserved than is on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.sender.jobs import Job
from app.stream.background import end


class Reserver:
    """Groups jobs while an earlier group is being written.

    Parameters
    ----------
    write
        Makes the reservations of a group durable. What it raises, everybody of the group gets.
    """

    def __init__(self, write: Callable[[Sequence[Job]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[tuple[Job, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def reserve(self, job: Job) -> None:
        """Returns when the reservation is durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        await asyncio.sleep(0)  # whoever else has just got a place comes along
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await self._write([job for job, _ in group])
            except Exception as exc:  # not ours to judge: the batch fails, and with it the process
                for _, done in group:
                    if not done.done():
                        done.set_exception(exc)
            else:
                for _, done in group:
                    if not done.done():
                        done.set_result(None)
        self._writer = None

    async def close(self) -> None:
        """Write nothing more. A write that was begun may or may not happen, as in a kill."""
        if self._writer is not None:
            await end(self._writer)
