"""The peer of `benchmarks.restore`: stock Faust's recovery of a table from a changelog that is there already.

Keys and values are raw bytes, which favours it: nothing is decoded. The store is RocksDB, as ours is; every setting
that would only delay the recovery's start is off.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import faust
import mode.loop

from benchmarks.common import write_report
from benchmarks.faust_idiomatic import STORES


def make_app(options: argparse.Namespace, data_dir: str) -> faust.App:
    """The app that reports when its table has been recovered."""
    app = faust.App(
        f"restore-{uuid.uuid4().hex[:8]}",
        broker=f"aiokafka://{options.broker}",
        store=STORES["rocksdb"],
        datadir=data_dir,
        topic_partitions=options.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        broker_rebalance_timeout=1,
        stream_recovery_delay=0,
        web_enabled=False,
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    source = app.topic(options.source, **raw)
    changelog = app.topic(options.changelog, partitions=options.partitions, compacting=True, **raw)
    rows = app.Table(
        "rows",
        key_type=bytes,
        value_type=bytes,
        partitions=options.partitions,
        changelog_topic=changelog,
    )
    began: list[tuple[float, float]] = []

    @app.on_partitions_assigned.connect
    async def begin(_app: Any, assigned: Any, **_more: Any) -> None:
        if assigned:
            began.append((time.monotonic(), time.process_time()))

    @rows.on_recover
    async def report() -> None:
        if began:
            seconds, cpu_s = time.monotonic() - began[-1][0], time.process_time() - began[-1][1]
            write_report(options.report, seconds, {"rows": len(rows)}, cpu_s)

    @app.agent(source)
    async def use(stream: Any) -> None:
        async for _event in stream:
            pass

    assert begin
    assert report
    assert use
    return app


def main() -> None:
    """Be the measured process; it runs until it is killed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--broker", required=True)
    arguments.add_argument("--partitions", type=int, required=True)
    arguments.add_argument("--source", required=True)
    arguments.add_argument("--changelog", required=True)
    arguments.add_argument("--report", type=Path, required=True)
    options = arguments.parse_args()
    mode.loop.use("uvloop")  # before any event loop exists
    with tempfile.TemporaryDirectory(prefix="nudge-bench-faust-") as data_dir:
        faust.Worker(make_app(options, data_dir), loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
