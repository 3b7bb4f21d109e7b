"""The peer: the same windowed count as Faust's own documentation would have it written.

A `faust.Record`, an agent that takes one event at a time, a hopping-window table (60 s, moving by 20 s) keyed by user,
in memory or in RocksDB; windows go by the record's timestamp, which is Faust's default. Its other defaults stand too,
except where they would only slow its start, and it gets uvloop, as the engine does. It counts; it has no segments,
and after a crash its counts are wrong.

    python -m benchmarks.faust_idiomatic --store memory --store rocksdb --json
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

import faust
import mode.loop

from benchmarks.common import Result, parser, print_results, run_contender, write_report
from benchmarks.workload import broker_at, describe, fill

WINDOW_S: Final = 60
STEP_S: Final = 20
STORES: Final = {"memory": "memory://", "rocksdb": "rocksdb://?driver=rocksdict"}


class TrackEvent(faust.Record, serializer="json", coerce=False):
    """The fields that the count needs; Faust ignores the others."""

    event: str
    userId: str  # noqa: N815 - the message's own name
    timestamp: int


def measure(
    bootstrap: str,
    topic: str,
    partitions: int,
    count: int,
    users: int,
    *,
    store: str = "memory",
    timeout_s: float = 600.0,
) -> Result:
    """Process the `count` events that `topic` holds already; see `benchmarks.workload.preload`.

    Parameters
    ----------
    store
        One of `STORES`.
    """
    arguments = ["--broker", bootstrap, "--topic", topic, "--partitions", str(partitions)]
    arguments += ["--events", str(count), "--store", store]
    return run_contender(
        f"idiomatic Faust ({store})", __spec__.name, arguments, events=count, users=users, timeout_s=timeout_s
    )


def make_app(options: argparse.Namespace, data_dir: str) -> faust.App:
    """The app that reports when it has counted `options.events` events."""
    app = faust.App(
        f"idiomatic-{uuid.uuid4().hex[:8]}",
        broker=f"aiokafka://{options.broker}",
        store=STORES[options.store[0]],
        datadir=data_dir,
        topic_partitions=options.partitions,
        topic_replication_factor=1,
        # Only how soon the group forms and a restore begins: neither is in the measured time.
        broker_rebalance_timeout=1,
        stream_recovery_delay=0,
        web_enabled=False,
    )
    topic = app.topic(options.topic, key_type=bytes, value_type=TrackEvent)
    counts = app.Table("counts", default=int, partitions=options.partitions).hopping(
        WINDOW_S, STEP_S, expires=10 * WINDOW_S
    )
    done = Countdown(options.events, options.report, {"store": options.store[0]})

    @app.agent(topic)
    async def count_events(stream: Any) -> None:
        async for event in stream:
            counts[event.userId] += 1
            done.one()

    assert count_events
    return app


class Countdown:
    """Takes the time from the first event to the last, and then reports."""

    def __init__(self, count: int, report: Path, detail: dict[str, Any]) -> None:
        self._left = count
        self._report = report
        self._detail = detail
        self._started = self._started_cpu = 0.0

    def one(self) -> None:
        """One more event was processed."""
        if not self._started:
            self._started, self._started_cpu = time.monotonic(), time.process_time()
        self._left -= 1
        if self._left == 0:
            loop = type(asyncio.get_running_loop()).__module__
            cpu_s = time.process_time() - self._started_cpu
            write_report(self._report, time.monotonic() - self._started, {**self._detail, "loop": loop}, cpu_s)


def _contend(options: argparse.Namespace) -> None:
    """The measured process; it runs until it is killed."""
    mode.loop.use("uvloop")  # before any event loop exists
    with tempfile.TemporaryDirectory(prefix="nudge-bench-faust-") as data_dir:
        faust.Worker(make_app(options, data_dir), loglevel="WARNING").execute_from_commandline()


async def _compare_stores(options: argparse.Namespace) -> None:
    results = []
    async with broker_at(options.broker) as bootstrap:
        for store in options.store:
            topic = f"bench-{uuid.uuid4().hex[:8]}"
            count = await fill(bootstrap, topic, options.partitions, options.events, options.users, options.seed)
            results.append(
                await asyncio.to_thread(
                    measure, bootstrap, topic, options.partitions, count, options.users, store=store
                )
            )
    sizes = {"events": options.events, "users": options.users, "partitions": options.partitions}
    print_results(results, describe(options.seed, **sizes), {}, as_json=options.json)


def main() -> None:
    """Measure, or (with --report) be the measured process."""
    arguments = parser(__doc__, events=20_000)
    arguments.add_argument("--store", action="append", choices=list(STORES), help="may be repeated (default: memory)")
    arguments.add_argument("--topic", default="", help=argparse.SUPPRESS)
    arguments.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    options.store = options.store or ["memory"]
    if options.report:
        _contend(options)
    else:
        asyncio.run(_compare_stores(options))


if __name__ == "__main__":
    main()
