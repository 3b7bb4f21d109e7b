"""What runs beside the stream for as long as the process does."""

from __future__ import annotations

import asyncio
from typing import ClassVar


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is gone."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Background:
    """One task: `_run`, from `start` until `stop`."""

    task_name: ClassVar[str]
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=self.task_name)

    async def stop(self) -> None:
        """Stop, wherever it is."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def _run(self) -> None:
        raise NotImplementedError
