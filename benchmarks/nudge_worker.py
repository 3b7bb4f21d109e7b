"""The contender: the real worker, as `nudge worker` runs it, timed from the first event to the last durable one."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.core.effects import Effects
from app.embedded import free_port
from app.factory import Worker
from app.faust_settings import install_uvloop
from app.logs import configure_logs
from app.run import run_app
from app.settings import load_settings
from benchmarks.common import ROOT, BenchmarkFailed, Result, run_contender, write_report

_HERE: Final = Path(__file__).parent
POLICIES: Final = {8: _HERE / "segments.yaml", 20: _HERE / "segments20.yaml"}
"""By their number of segments."""
SHARES: Final = ("thread_running", "thread_waiting")
"""Of the measured time, in which the thread that folds ran, and in which it could have."""


def measure(
    bootstrap: str,
    partitions: int,
    count: int,
    users: int,
    *,
    policy: Path = POLICIES[20],
    idempotent: bool = False,
    cache_rows: int = 1_000,
    timeout_s: float = 300.0,
    checkout: Path = ROOT,
) -> Result:
    """Process the `count` events that the topic `events` holds already, with the worker of `checkout`."""
    arguments = ["--broker", bootstrap, "--partitions", str(partitions), "--events", str(count)]
    arguments += ["--policy", str(policy), "--cache-rows", str(cache_rows)]
    if idempotent:
        arguments.append("--idempotent")
    result = run_contender(
        "nudge worker",
        __spec__.name,
        arguments,
        events=count,
        users=users,
        timeout_s=timeout_s,
        checkout=checkout,
    )
    if result.detail.get("replayed"):
        raise BenchmarkFailed("rows in the changelog had the events already: the broker is not a new one")
    return result


def thread_ns() -> tuple[int, int] | None:
    """How long this thread has run, and waited for a processor, nanoseconds; None where the kernel does not tell."""
    try:
        running, waiting, _slices = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()
    except (OSError, ValueError):
        return None
    return int(running), int(waiting)


class CountingObserver:
    """Passes everything on, and reports when `count` events are durable."""

    def __init__(self, inner: Any, count: int, report: Path, worker: Worker) -> None:
        self._inner = inner
        self._count = count
        self._left = count
        self._report = report
        self._worker = worker
        self._started = self._started_cpu = 0.0
        self._thread_ns: tuple[int, int] | None = None
        self._processing_s = 0.0
        self._replayed = 0

    def effects(self, effects: Effects, partition: int) -> None:
        self._inner.effects(effects, partition)

    def batch(self, records: int, seconds: float) -> None:
        if not self._started:  # the first batch was worked on and not waited for: its seconds are processor time
            self._started, self._started_cpu = time.monotonic() - seconds, time.process_time() - seconds
            self._thread_ns = thread_ns()
        self._processing_s += seconds
        self._inner.batch(records, seconds)

    def durable(self, effects: Effects) -> None:
        self._inner.durable(effects)
        before = self._left
        self._left -= sum(number for (name, *_), number in effects.counts.items() if name == "events")
        self._replayed += effects.counts.get(("events", "replayed"), 0)
        if self._left <= 0 < before:
            detail = {
                "rows": sum(len(store) for store in self._worker.table.stores.values()),
                "segments": len(self._worker.plan.segments),
                "replayed": self._replayed,
                "processing_us": round(1e6 * self._processing_s / self._count, 2),
            }
            cpu_s = time.process_time() - self._started_cpu
            seconds = time.monotonic() - self._started
            write_report(self._report, seconds, detail | self._shares(seconds), cpu_s)

    def _shares(self, seconds: float) -> dict[str, float]:
        """`SHARES`; the first batch, which is a few milliseconds, is not in them."""
        before, now = self._thread_ns, thread_ns()
        if before is None or now is None:
            return {}
        return {name: round((now[n] - before[n]) / seconds / 1e9, 3) for n, name in enumerate(SHARES)}

    def members(self, partition: int, counts: Mapping[int, int] | None) -> None:
        self._inner.members(partition, counts)


def main() -> None:
    """Be the measured process; it runs until it is killed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--broker", required=True)
    arguments.add_argument("--partitions", type=int, required=True)
    arguments.add_argument("--events", type=int, required=True)
    arguments.add_argument("--policy", type=Path, required=True)
    arguments.add_argument("--cache-rows", type=int, default=1_000)
    arguments.add_argument("--idempotent", action="store_true")
    arguments.add_argument("--report", type=Path, required=True)
    options = arguments.parse_args()
    install_uvloop()
    configure_logs("json", "warning")
    with tempfile.TemporaryDirectory(prefix="nudge-bench-") as data_dir:
        settings = load_settings(
            broker=options.broker,
            profile="dev",
            app_id=f"bench-{uuid.uuid4().hex[:8]}",
            partitions=options.partitions,
            policy=options.policy,
            data_dir=Path(data_dir),
            http_port=free_port(),
            idempotent=options.idempotent,
            cache_rows=options.cache_rows,
        )
        worker = Worker(settings)
        worker.engine._observer = CountingObserver(worker.engine._observer, options.events, options.report, worker)
        run_app(worker.app)


if __name__ == "__main__":
    main()
