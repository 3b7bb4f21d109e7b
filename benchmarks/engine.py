"""Throughput of the worker beside the idiomatic Faust app and the floor, on one broker, in one run.

    python -m benchmarks.engine --json

Every contender processes events that were in the topic before it started: decode, a windowed count a user, and a
changelog. The worker does more: segments, recency, de-duplication, RFM, timers, RocksDB, and an acknowledgement for
everything. The idiomatic app gets fewer events (it would take minutes), which favours it: its state stays small.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from app.topics import create_topics
from benchmarks import faust_idiomatic, floor, nudge_worker
from benchmarks.common import Result, machine, parser, print_results
from benchmarks.workload import broker_at, describe, events, preload
from schemas.topics import EVENTS


async def run(options: Any) -> dict[str, Result]:
    """Measure each contender `options.repeat` times, in turn; the median run of each counts."""
    found: dict[str, list[Result]] = {}
    for turn in range(options.repeat):
        async with broker_at(options.broker) as bootstrap:  # a fresh broker for each turn: it keeps all in memory
            await create_topics(bootstrap, options.partitions)
            now_ms = time.time_ns() // 1_000_000
            records = events(
                options.events, options.users, options.seed + turn, start_ms=now_ms - 600_000, keys=options.keys
            )
            count = await preload(bootstrap, EVENTS, options.partitions, records, timestamp_ms=now_ms)
            few = events(
                options.faust_events, options.users, options.seed + turn, start_ms=now_ms - 600_000, keys=options.keys
            )
            small = await preload(bootstrap, "bench-small", options.partitions, few, timestamp_ms=now_ms)
            for result in (
                await asyncio.to_thread(
                    nudge_worker.measure,
                    bootstrap,
                    options.partitions,
                    count,
                    options.users,
                    policy=options.policy,
                    cache_rows=options.cache_rows,
                ),
                await asyncio.to_thread(
                    faust_idiomatic.measure, bootstrap, "bench-small", options.partitions, small, options.users
                ),
                await asyncio.to_thread(floor.measure, bootstrap, EVENTS, options.partitions, count, options.users),
            ):
                found.setdefault(result.name, []).append(result)
    return {name: _median(results) for name, results in found.items()}


def _median(results: list[Result]) -> Result:
    middle = statistics.median_low([result.events_per_second for result in results])
    return next(result for result in results if result.events_per_second == middle)


def main() -> None:
    """Measure and print; the last line is one JSON object with --json."""
    arguments = parser(__doc__, events=400_000)
    arguments.add_argument("--faust-events", type=int, default=20_000, help="events for the idiomatic app")
    arguments.add_argument("--policy", type=Path, default=nudge_worker.POLICY, help="policy of the worker")
    arguments.add_argument("--cache-rows", type=int, default=1_000, help="decoded rows in the worker's memory")
    arguments.add_argument("--keys", choices=["uniform", "zipf"], default="uniform", help="how users are drawn")
    arguments.add_argument("--repeat", type=int, default=1, help="turns; the median of each contender counts")
    options = arguments.parse_args()
    results = asyncio.run(run(options))
    ours, faust, bare = results.values()
    ratios = {
        "ratio_vs_faust": ours.events_per_second / faust.events_per_second,
        "share_of_floor": ours.events_per_second / bare.events_per_second,
    }
    workload = describe(
        options.seed, keys=options.keys, users=options.users, events=options.events, partitions=options.partitions
    )
    print_results(list(results.values()), workload, ratios, as_json=False)
    if options.json:
        summary = {
            "events_per_second": round(ours.events_per_second),
            **{name: round(ratio, 3) for name, ratio in ratios.items()},
            "cpu_seconds_per_million": round(ours.cpu_s / ours.events * 1e6, 2),
            "rss_mb": ours.rss_mb_max,
            "users": options.users,
            "keys": options.keys,
            "segments": ours.detail["segments"],
            "faust_events_per_second": round(faust.events_per_second),
            "floor_events_per_second": round(bare.events_per_second),
            "machine": machine(),
        }
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
