"""The worker alone: what one build, or two in alternation, take an event, and whether the worker's thread had to wait.

    make compile
    python -m benchmarks.alone --kafka --turns 3 --json
    python -m benchmarks.alone --kafka --turns 3 --against /path/to/other/checkout --json

The workload and the policy are those of `benchmarks.engine`, without its other contenders, and `--policy` takes another
one: with that of `benchmarks.latency` one event in five causes a decision. Every run has a broker of
its own: on another's it would find the rows of that one in the changelog, and pass the events by. A floor runs before
it and is not counted, since a broker that has just started takes the processor from whoever comes first. With
`--against` both checkouts get the same events in a turn, and who is first changes; the ratio is the median of the
turns' ratios. Compile both, or neither.

Where the thread that folds did not run, it waited for a processor, or it slept: for the interpreter's lock, that the
consumer's thread has meanwhile, for events, or for acknowledgements. Linux tells; elsewhere nothing is said of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.topics import create_topics
from benchmarks import floor_rows, nudge_worker
from benchmarks.common import AGAINST, HERE, ROOT, Result, in_turn, machine, parser
from benchmarks.workload import broker_at, describe, fill
from schemas.topics import EVENTS


async def turns(options: argparse.Namespace) -> dict[str, list[Result]]:
    """What each checkout did in each turn."""
    checkouts = {HERE: ROOT}
    if options.against is not None:
        checkouts[AGAINST] = options.against.resolve()
    found: dict[str, list[Result]] = {name: [] for name in checkouts}
    for number in range(options.turns):
        for name in in_turn(list(checkouts), number):
            async with broker_at("", kafka=options.kafka) as bootstrap:
                result = await _run(options, bootstrap, options.seed + number, checkouts[name])
            found[name].append(result)
            print(f"{name:>8}: {result.line()}", flush=True)
    return found


async def _run(options: argparse.Namespace, bootstrap: str, seed: int, checkout: Path) -> Result:
    await create_topics(bootstrap, options.partitions)
    count = await fill(bootstrap, EVENTS, options.partitions, options.events, options.users, seed, keys=options.keys)
    await asyncio.to_thread(floor_rows.measure, bootstrap, EVENTS, options.partitions, count, options.users)
    return await asyncio.to_thread(_measure, options, bootstrap, count, checkout)


def _measure(options: argparse.Namespace, bootstrap: str, count: int, checkout: Path) -> Result:
    return nudge_worker.measure(
        bootstrap,
        options.partitions,
        count,
        options.users,
        policy=options.policy,
        idempotent=options.kafka,
        checkout=checkout,
    )


def summary(found: dict[str, Sequence[Result]]) -> dict[str, Any]:
    """The median of each checkout's turns, and of their ratios (above 1: this checkout is the faster one)."""
    told: dict[str, Any] = {name: _told(results) for name, results in found.items()}
    if AGAINST in found:
        pairs = zip(found[HERE], found[AGAINST], strict=True)
        ratios = [ours.events_per_second / other.events_per_second for ours, other in pairs]
        told |= {"ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}
    return told


def _told(results: Sequence[Result]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "events_per_second": round(statistics.median(result.events_per_second for result in results)),
        "events_per_second_max": round(max(result.events_per_second for result in results)),
        "cpu_seconds_per_million": round(statistics.median(r.cpu_seconds_per_million for r in results), 2),
        "rss_mb": max(result.rss_mb_max for result in results),
    }
    for share in nudge_worker.SHARES:
        if all(share in result.detail for result in results):  # another checkout may not take it
            told[share] = round(statistics.median(result.detail[share] for result in results), 3)
    return told


def main() -> None:
    """Measure and print; the last line is one JSON object with --json."""
    taken = parser(__doc__, events=400_000, brokers=False)
    taken.add_argument("--kafka", action="store_true", help="a real Apache Kafka, started here")
    taken.add_argument("--segments", type=int, choices=list(nudge_worker.POLICIES), default=20)
    taken.add_argument("--policy", type=Path, help="another policy, such as benchmarks/latency.yaml: with decisions")
    taken.add_argument("--keys", choices=["uniform", "zipf"], default="uniform", help="how users are drawn")
    taken.add_argument("--turns", type=int, default=3, help="of each checkout (default: %(default)s)")
    taken.add_argument("--against", type=Path, help="another checkout of nudge")
    options = taken.parse_args()
    options.policy = (options.policy or nudge_worker.POLICIES[options.segments]).resolve()
    sizes = {"users": options.users, "events": options.events, "partitions": options.partitions}
    workload = describe(options.seed, keys=options.keys, turns=options.turns, **sizes) | {"policy": options.policy.name}
    told = summary(asyncio.run(turns(options)))
    for name, value in told.items():
        print(f"{name:>8}: {value}")
    if options.json:
        print(json.dumps({**told, "workload": workload, "machine": machine()}))


if __name__ == "__main__":
    main()
