"""Whether an event costs the same with more workers, and with more users behind it.

    python -m benchmarks.scale --json
    python -m benchmarks.scale --kafka --users 10000,100000,1000000,5000000 --json

What is measured is processor time of the workers an event, which does not depend on how many cores there are. Each
run: a changelog with a row a user (`benchmarks.rows`), workers that have restored it, have come to rest and share the
partitions, then events of users drawn uniformly, produced faster than they are processed. The runs with several workers
have the same events and users as the run with one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from app.topics import create_topics
from benchmarks import rows
from benchmarks.common import BenchmarkFailed, machine
from benchmarks.nudge_worker import POLICIES
from benchmarks.worker_process import WorkerProcess, until
from benchmarks.workload import broker_at, events, preload
from schemas.topics import EVENTS, PROFILES_CHANGELOG

USERS: Final = "10000,100000,1000000"
WORKERS: Final = (1, 2)
START_S_MAX: Final = 400.0
ROWS_PER_SECOND_MIN: Final = 5_000
"""Of a restore, on whatever machine: beyond it the worker is taken for stuck."""
WORK_S_MAX: Final = 400.0
REST_S_MAX: Final = 400.0
REST_LOOK_S: Final = 3.0
REST_SHARE: Final = 0.25
"""Of a processor: the backfill's look through the rows goes on for longer, at a bounded cost."""
_LOOK_S: Final = 0.5
"""A look at the metrics costs the worker milliseconds, which count."""


def processed(workers: Sequence[WorkerProcess]) -> int:
    """Events that the workers have processed."""
    return round(sum(worker.metric("nudge_events_total", topic=EVENTS) for worker in workers))


async def cost(options: Any, sample: list[bytes], users: int, number: int) -> dict[str, Any]:
    """Processor time of `number` workers an event, with `users` rows."""
    async with broker_at(options.broker, kafka=options.kafka) as bootstrap:
        await create_topics(bootstrap, options.partitions)
        now_ms = time.time_ns() // 1_000_000
        known = rows.spread(sample, users)
        await preload(bootstrap, PROFILES_CHANGELOG, options.partitions, known, timestamp_ms=now_ms)
        with contextlib.ExitStack() as running:
            group = f"scale-{uuid.uuid4().hex[:8]}"
            workers = [running.enter_context(_worker(options, bootstrap, group)) for _ in range(number)]

            def restored() -> bool:
                shares = [worker.metric("nudge_state_rows", table="profiles") for worker in workers]
                return all(worker.ready for worker in workers) and min(shares) > 0 and sum(shares) == users

            limit_s = START_S_MAX + users / ROWS_PER_SECOND_MIN
            if not await until(restored, limit_s, _LOOK_S):
                raise BenchmarkFailed(f"{users:,} rows were not restored by {number} workers in {limit_s:.0f} s")
            await _rested(workers)
            return await _worked(options, bootstrap, workers, users)


async def _rested(workers: Sequence[WorkerProcess]) -> None:
    """Wait until the stores have merged what the restore has written: it belongs to the restore, not to the events."""
    busy_s = sum(worker.cpu_s for worker in workers)

    def rests() -> bool:
        nonlocal busy_s
        time.sleep(REST_LOOK_S)
        before_s, busy_s = busy_s, sum(worker.cpu_s for worker in workers)
        return busy_s - before_s < REST_SHARE * REST_LOOK_S * len(workers)

    if not await until(rests, REST_S_MAX):
        raise BenchmarkFailed(f"the workers did not come to rest in {REST_S_MAX:.0f} s")


def _worker(options: Any, bootstrap: str, group: str) -> WorkerProcess:
    return WorkerProcess(
        bootstrap,
        group=group,
        partitions=options.partitions,
        policy=options.policy,
        idempotent=options.kafka or bool(options.broker),
    )


async def _worked(options: Any, bootstrap: str, workers: Sequence[WorkerProcess], users: int) -> dict[str, Any]:
    """Give the workers the events and wait until they are through."""
    cpu_s = sum(worker.cpu_s for worker in workers)
    began_s = time.monotonic()
    now_ms = time.time_ns() // 1_000_000
    drawn = events(options.events, users, options.seed + 1, start_ms=now_ms - 1_000, span_ms=1_000)
    await preload(bootstrap, EVENTS, options.partitions, drawn, timestamp_ms=now_ms)
    if not await until(lambda: processed(workers) >= options.events, WORK_S_MAX, _LOOK_S):
        raise BenchmarkFailed(f"{processed(workers):,} of {options.events:,} events in {WORK_S_MAX:.0f} s")
    seconds = time.monotonic() - began_s
    return {
        "workers": len(workers),
        "users": users,
        "cpu_us_per_event": round((sum(worker.cpu_s for worker in workers) - cpu_s) / options.events * 1e6, 2),
        "events_per_second": round(options.events / seconds),
        "rss_mb": round(sum(worker.rss_mb for worker in workers), 1),
        "disk_mb": round(sum(worker.disk_mb for worker in workers), 1),
    }


async def run(options: Any) -> list[dict[str, Any]]:
    """One worker with each number of users, and several with the number that they are compared at."""
    sample = await asyncio.to_thread(rows.sample, options.policy, seed=options.seed)
    plan = [(users, 1) for users in options.users]
    if options.workers_users:
        plan += [(options.workers_users, number) for number in WORKERS if (options.workers_users, number) not in plan]
    found = []
    for users, number in plan:
        found.append(await cost(options, sample, users, number))
        print("   ".join(f"{name} {value:,}" for name, value in found[-1].items()), flush=True)
    return found


def summary(options: Any, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The object of the last line: costs, and each as a ratio to what it is compared with."""
    by_run = {(one["users"], one["workers"]): one for one in found}
    least, most = by_run[min(options.users), 1], by_run[max(options.users), 1]
    compared = {}
    if options.workers_users:
        one, two = by_run[options.workers_users, 1], by_run[options.workers_users, 2]
        compared = {"cpu_ratio_2_workers": round(two["cpu_us_per_event"] / one["cpu_us_per_event"], 3)}
    return {
        **compared,
        "cpu_ratio_most_users": round(most["cpu_us_per_event"] / least["cpu_us_per_event"], 3),
        "rate_ratio_most_users": round(most["events_per_second"] / least["events_per_second"], 3),
        "workers_users": options.workers_users,
        "runs": list(found),
        "events": options.events,
        "broker": "Apache Kafka" if options.kafka else options.broker or "embedded",
        "machine": machine(),
    }


def chosen(given: Sequence[str] | None = None) -> Any:
    """The command's arguments, completed."""
    taken = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    taken.add_argument("--users", default=USERS, help="rows, by commas (default: %(default)s)")
    taken.add_argument(
        "--workers-users", type=int, default=100_000, help="rows where 1 and 2 workers are compared; 0: not"
    )
    taken.add_argument("--events", type=int, default=200_000, help="of each run (default: %(default)s)")
    taken.add_argument("--partitions", type=int, default=4)
    taken.add_argument("--seed", type=int, default=1)
    taken.add_argument("--policy", type=Path, default=POLICIES[20])
    taken.add_argument("--broker", default="", help="HOST:PORT of an empty broker: for a single run")
    taken.add_argument("--kafka", action="store_true", help="real Apache Kafka, a fresh one for each run")
    taken.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = taken.parse_args(given)
    options.users = [int(number) for number in options.users.split(",")]
    return options


def main() -> None:
    """Measure and print; the last line is one JSON object with --json."""
    options = chosen()
    found = asyncio.run(run(options))
    if options.json:
        print(json.dumps(summary(options, found)))


if __name__ == "__main__":
    main()
