"""A worker that dies, or is stuck or suspended, at a named point: ``NUDGE_TEST_FAILPOINT=POINT:NTH[:block|:suspend]``.

The points are where the product's own objects are wrapped, in this process only; the product knows nothing of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from app.cli_common import read_settings
from app.factory import Worker
from app.faust_settings import install_uvloop
from app.logs import configure_logs
from app.run import run_app
from app.stream.fetch import ChangelogConsumer
from app.stream.store import PartitionStore

VARIABLE = "NUDGE_TEST_FAILPOINT"
POINTS = (
    "rows queued",
    "rows acknowledged",
    "rows stored",
    "rows spilled",
    "outputs queued",
    "batch durable",
    "offset committed",
)
RESTORE = "restore connects"
"""A point, too, though not one of a batch's life."""
_LOOK_S = 0.01
_LOOKS = 3_000


class Failpoint:
    """Acts the nth time its point is passed."""

    def __init__(self, text: str) -> None:
        self.point, nth, *action = text.split(":")
        self.left = int(nth)
        self.action = action[0] if action else "kill"

    def passed(self, point: str) -> bool:
        """The process is at `point`; whether it has just been suspended there."""
        if point != self.point:
            return False
        self.left -= 1
        if self.left == 0:
            print(f"failpoint reached: {point}", file=sys.stderr, flush=True)
            if self.action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.action == "block":
                time.sleep(3600)  # the event loop is stuck
            os.kill(os.getpid(), signal.SIGSTOP)
        return self.left == 0


def after(owner: Any, name: str, then: Callable[[], None]) -> None:
    """Call `then` after each call of a method."""
    method = getattr(owner, name)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = await method(*args, **kwargs)
        then()
        return result

    setattr(owner, name, wrapped)


def arm(worker: Worker, failpoint: Failpoint) -> None:
    """Wrap what a worker is made of."""
    producer = worker.app.durable_producer
    after(producer, "enqueue_rows", lambda: failpoint.passed("rows queued"))
    after(producer, "enqueue_batch", lambda: failpoint.passed("outputs queued"))
    arrive, spill = PartitionStore.arrive, PartitionStore._spill_oldest
    durable, committed = worker.engine._observer.durable, worker.app.on_committed

    class Restoring(ChangelogConsumer):
        async def start(self) -> None:
            epoch = worker.app.batches.flow_epoch
            if failpoint.passed(RESTORE):
                for _ in range(_LOOKS):
                    if worker.app.batches.flow_epoch != epoch:  # the group has taken the partitions away, and said so
                        break
                    await asyncio.sleep(_LOOK_S)
            await super().start()

    worker.table.connect = Restoring

    def stored(self: PartitionStore, *rows: Any, **kwargs: Any) -> None:
        if not worker.app.tables.recovery.completed.is_set():
            arrive(self, *rows, **kwargs)  # a restore writes, too
            return
        failpoint.passed("rows acknowledged")
        arrive(self, *rows, **kwargs)
        failpoint.passed("rows stored")

    def spilled(self: PartitionStore, bytes_min: int) -> None:
        spill(self, bytes_min)
        if worker.app.tables.recovery.completed.is_set():
            failpoint.passed("rows spilled")

    def told(effects: Any) -> None:
        durable(effects)
        failpoint.passed("batch durable")

    def done(seconds: float) -> None:
        committed(seconds)
        failpoint.passed("offset committed")

    PartitionStore.arrive = stored  # type: ignore[method-assign]
    PartitionStore._spill_oldest = spilled  # type: ignore[method-assign]
    worker.engine._observer.durable = told  # type: ignore[method-assign]
    worker.app.on_committed = done


def main() -> None:
    """Run the worker."""
    install_uvloop()
    settings = read_settings()
    configure_logs(settings.log_format, settings.log_level)
    worker = Worker(settings)
    arm(worker, Failpoint(os.environ[VARIABLE]))
    run_app(worker.app)


if __name__ == "__main__":
    main()
