"""The contender of `benchmarks.restore`: the real worker, timed from its assignment until its rows are all there.

It ends in order after that, so that its data folder can be used again; the report follows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.embedded import free_port
from app.factory import Worker
from app.faust_settings import install_uvloop
from app.logs import configure_logs
from app.run import run_app
from app.settings import load_settings
from benchmarks.common import write_report


class TimedRestore:
    """Stands before the app's `restore_tables`: takes the time, and ends the worker when events would be next."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._inner = worker.app.restore_tables
        self.seconds = self.cpu_s = 0.0
        self.rows = 0
        self._ending: asyncio.Task[None] | None = None

    async def __call__(self, interrupted: Callable[[], bool]) -> bool:
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        done = await self._inner(interrupted)
        self.seconds, self.cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        self.rows = sum(len(store) for store in self._worker.table.stores.values())
        if done and self.rows:
            self._ending = asyncio.create_task(self._end())
        return done

    async def _end(self) -> None:
        recovery: Any = self._worker.app.tables.recovery
        await recovery.completed.wait()
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Be the measured process."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--broker", required=True)
    arguments.add_argument("--partitions", type=int, required=True)
    arguments.add_argument("--policy", type=Path, required=True)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--group", required=True)
    arguments.add_argument("--idempotent", action="store_true")
    arguments.add_argument("--report", type=Path, required=True)
    options = arguments.parse_args()
    install_uvloop()
    configure_logs("json", "warning")
    settings = load_settings(
        broker=options.broker,
        profile="dev",
        app_id=options.group,
        partitions=options.partitions,
        policy=options.policy,
        data_dir=options.data,
        http_port=free_port(),
        idempotent=options.idempotent,
    )
    worker = Worker(settings)
    timed = TimedRestore(worker)
    worker.app.restore_tables = timed  # type: ignore[method-assign]
    try:
        run_app(worker.app)
    finally:
        write_report(options.report, timed.seconds, {"rows": timed.rows}, timed.cpu_s)


if __name__ == "__main__":
    main()
