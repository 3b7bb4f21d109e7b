"""What the watchdog of a worker looks at."""

from __future__ import annotations

from collections.abc import Mapping

from faust.types import TP

from app.stream.app import StreamApp
from app.stream.engine import Engine
from app.stream.lease import boot_time
from app.stream.watchdog import Vitals

FETCH_S_MAX = 10.0
"""An idle worker fetches many times a second."""


def worker_vitals(app: StreamApp, engine: Engine, restoring: Mapping[str, int]) -> Vitals:
    """The state of a worker between two looks.

    Parameters
    ----------
    restoring
        Records that a restore still has to read, by table.
    """
    consumer = app.batches
    partitions = sorted(engine.tenures())
    positions = tuple((partition, engine.position(partition)) for partition in partitions)
    durable = tuple(consumer.barrier.committable(TP(engine.source, partition)) for partition in partitions)
    # Not the lag: what stands at the end of a log is not always something that can be delivered.
    unread = sum(consumer.unread(TP(engine.source, partition)) for partition in partitions)
    waits = unread + consumer.backlog.waiting(engine.source)
    inflight = consumer.barrier.inflight
    silent_s = boot_time() - consumer.fetched_at
    if not app.tables.recovery.completed.is_set():
        waiting = f"partitions wait for their restore ({sum(restoring.values())} records left)"
    elif waits or inflight:
        waiting = f"{waits} records wait and {inflight} batches are in flight"
    elif silent_s > FETCH_S_MAX:
        waiting = "nothing is fetched"
    else:
        waiting = ""
    progress = (positions, durable, inflight, tuple(restoring.items()), app.consumer_generation_id)
    return Vitals(app.lease.valid, waiting, progress)
