"""What runs beside the stream for as long as the process does."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

import structlog

from app.core.raised import where_raised

log = structlog.get_logger(__name__)

_RETRY_S: Final = 5.0


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is gone."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Background:
    """One task: `_run`, from `start` until `stop`. As nobody awaits it, what it raises is said, and it begins anew."""

    task_name: ClassVar[str]
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._live(), name=self.task_name)

    async def stop(self) -> None:
        """Stop, wherever it is."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def _live(self) -> None:
        while True:
            try:
                await self._run()
            except Exception as exc:
                log.error("background_failed", task=self.task_name, error=where_raised(exc))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _run(self) -> None:
        raise NotImplementedError
