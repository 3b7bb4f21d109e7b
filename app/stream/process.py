"""The process around the app: signals and services are Faust's, its end is ours."""

from __future__ import annotations

import asyncio
from typing import Final

import faust

_END_S_MAX: Final = 1.0


class Process(faust.Worker):
    """Ends as soon as the app has stopped.

    Faust lets up to two seconds pass first, in case something of it still runs. What must not be lost has been awaited
    by then, and whoever restarts us waits for our end.
    """

    def _shutdown_loop(self) -> None:
        self.loop.run_until_complete(self._end_tasks())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        if self.crash_reason:
            self.log.critical("the process crashed", exc_info=self.crash_reason)
            raise self.crash_reason from self.crash_reason

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_S_MAX)
