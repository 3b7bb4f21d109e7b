"""How long a worker takes to have its rows: from the changelog alone, and with what its disk has, beside stock Faust.

    python -m benchmarks.restore --json
    python -m benchmarks.restore --kafka --json

The changelog holds `--rows` rows as the worker writes them (`benchmarks.rows`). A restore runs from the assignment
until events would be next: read, apply, claim, check the store, index the timers. Cold is an empty data folder; warm is
the same folder after an orderly end, where every row is read once to check it. Faust recovers a changelog of the same
rows, fewer of them, and is compared by rows a second.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from app.stream.fence import row_headers
from app.topics import create_topics
from benchmarks import rows
from benchmarks.common import BenchmarkFailed, Result, machine, run_contender
from benchmarks.nudge_worker import POLICIES
from benchmarks.workload import broker_at, preload
from schemas.topics import PROFILES_CHANGELOG, Topic

FAUST_SOURCE: Final = "bench-restore-source"
FAUST_CHANGELOG: Final = "bench-restore-changelog"
TIMEOUT_S: Final = 500.0


async def run(options: Any) -> dict[str, Result]:
    """Cold, warm, Faust."""
    sample = await asyncio.to_thread(rows.sample, options.policy, seed=options.seed)
    now_ms = time.time_ns() // 1_000_000
    async with broker_at(options.broker, kafka=options.kafka) as bootstrap:
        await create_topics(bootstrap, options.partitions)
        filled = rows.spread(sample, options.rows)
        await preload(
            bootstrap, PROFILES_CHANGELOG, options.partitions, filled, timestamp_ms=now_ms, headers=row_headers(1)
        )
        few = rows.spread(sample, options.faust_rows)
        await preload(bootstrap, FAUST_CHANGELOG, options.partitions, few, timestamp_ms=now_ms)
        source = Topic(
            name=FAUST_SOURCE, key="user", value="nothing", partitions="events", cleanup="delete", retention_ms=-1,
            purpose="benchmark",
        )  # fmt: skip
        await create_topics(bootstrap, options.partitions, topics=[source])
        with tempfile.TemporaryDirectory(prefix="nudge-bench-restore-") as folder:
            group = f"restore-{uuid.uuid4().hex[:8]}"
            found = {}
            for name in ("cold", "warm"):
                found[name] = await asyncio.to_thread(_ours, options, bootstrap, Path(folder), group, name)
        found["faust"] = await asyncio.to_thread(_faust, options, bootstrap)
    for result in (found["cold"], found["warm"]):
        if result.detail["rows"] != result.events:
            raise BenchmarkFailed(f"{result.name}: {result.detail['rows']:,} rows instead of {result.events:,}")
    return found


def _ours(options: Any, bootstrap: str, folder: Path, group: str, name: str) -> Result:
    arguments = ["--broker", bootstrap, "--partitions", str(options.partitions), "--policy", str(options.policy)]
    arguments += ["--data", str(folder), "--group", group]
    if options.kafka or options.broker:
        arguments.append("--idempotent")
    return run_contender(
        name, "benchmarks.restore_worker", arguments, events=options.rows, users=options.rows, timeout_s=TIMEOUT_S
    )


def _faust(options: Any, bootstrap: str) -> Result:
    arguments = ["--broker", bootstrap, "--partitions", str(options.partitions)]
    arguments += ["--source", FAUST_SOURCE, "--changelog", FAUST_CHANGELOG]
    number = options.faust_rows
    result = run_contender(
        "faust", "benchmarks.restore_faust", arguments, events=number, users=number, timeout_s=TIMEOUT_S
    )
    # Faust may say that it has recovered when rows are missing; its rate is that of the rows that it has.
    return dataclasses.replace(result, events=result.detail["rows"])


def summary(options: Any, found: dict[str, Result]) -> dict[str, Any]:
    """The object of the last line; the rate is the cold one. Rows that Faust lacks at its end are counted."""
    cold, warm, faust = found["cold"], found["warm"], found["faust"]
    return {
        "rows_per_second": round(cold.events_per_second),
        "ratio_vs_faust": round(cold.events_per_second / faust.events_per_second, 2),
        "rows": options.rows,
        "cold_seconds": round(cold.seconds, 2),
        "warm_seconds": round(warm.seconds, 2),
        "warm_rows_per_second": round(warm.events_per_second),
        "faust_rows_per_second": round(faust.events_per_second),
        "faust_rows": options.faust_rows,
        "faust_rows_missing": options.faust_rows - faust.events,
        "cpu_seconds_per_million": round(cold.cpu_seconds_per_million, 2),
        "rss_mb": cold.rss_mb_max,
        "broker": "Apache Kafka" if options.kafka else options.broker or "embedded",
        "machine": machine(),
    }


def chosen(given: Sequence[str] | None = None) -> Any:
    """The command's arguments."""
    taken = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    taken.add_argument("--rows", type=int, default=1_000_000, help="of the changelog (default: %(default)s)")
    taken.add_argument("--faust-rows", type=int, default=50_000, help="of Faust's (default: %(default)s)")
    taken.add_argument("--partitions", type=int, default=4)
    taken.add_argument("--seed", type=int, default=1)
    taken.add_argument("--policy", type=Path, default=POLICIES[20], help="that wrote the rows")
    taken.add_argument("--broker", default="", help="HOST:PORT of an empty broker; one is started when not given")
    taken.add_argument("--kafka", action="store_true", help="that one is a real Apache Kafka")
    taken.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return taken.parse_args(given)


def main() -> None:
    """Measure and print; the last line is one JSON object with --json."""
    options = chosen()
    found = asyncio.run(run(options))
    for result in found.values():
        print(result.line().replace("events", "rows"))
    if options.json:
        print(json.dumps(summary(options, found)))


if __name__ == "__main__":
    main()
