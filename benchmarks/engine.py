"""Throughput of the worker beside other engines and the floor, on one broker, in one run.

    python -m benchmarks.engine --json
    python -m benchmarks.engine --peers quix,kafka_streams --json

Every contender processes events that were in the topic before it started: decode, a windowed count a user, and a
changelog. The worker does more: segments, recency, de-duplication, RFM, timers, RocksDB, and an acknowledgement for
everything. Of the three floors one keeps its counts in a dict, the others rows like the worker's on disk, which the
last does not even decode; none decides anything. The slow ones get fewer events (they would take minutes), which
favours them: their state stays small.

A broker that has just started is compiled while it runs, and takes the processor from whoever comes first: half of its
rate. So a floor runs before all of them, and is not counted.

With peers, or with --kafka, all contenders of a turn run on one real Apache Kafka (Java and Maven are needed); without,
on an embedded broker. A peer that cannot run is null in the results, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from app.topics import create_topics
from benchmarks import faust_idiomatic, floor, floor_rows, nudge_worker
from benchmarks.common import BenchmarkFailed, Result, machine, parser, print_results
from benchmarks.peers import quix, streams
from benchmarks.peers.environment import PeerUnavailable
from benchmarks.workload import broker_at, describe, fill
from schemas.topics import EVENTS
from tests.support.kafka import kafka_version

PEERS: Final = ("quix", "kafka_streams")
FAUST_TOPIC: Final = "bench-small"
QUIX_TOPIC: Final = "bench-quix"

Outcome = Result | str
"""A result, or why there is none."""


Turn = dict[str, Outcome]
"""What each contender did, one after the other on one broker."""


async def run(options: Any) -> list[Turn]:
    """Measure all contenders `options.repeat` times, in turn."""
    turns = []
    for number in range(options.repeat):
        # A fresh broker for each turn: the embedded one keeps all in memory.
        async with broker_at(options.broker, kafka=options.kafka) as bootstrap:
            turns.append(await _turn(options, bootstrap, options.seed + number))
    return turns


async def _turn(options: Any, bootstrap: str, seed: int) -> Turn:
    await create_topics(bootstrap, options.partitions)

    async def filled(topic: str, count: int) -> int:
        return await fill(bootstrap, topic, options.partitions, count, options.users, seed, keys=options.keys)

    count = await filled(EVENTS, options.events)
    small = await filled(FAUST_TOPIC, options.faust_events)
    contenders: dict[str, Callable[[], Result]] = {
        "nudge": lambda: nudge_worker.measure(
            bootstrap,
            options.partitions,
            count,
            options.users,
            policy=options.policy,
            idempotent=options.kafka or bool(options.broker),
            cache_rows=options.cache_rows,
        ),
        "faust": lambda: faust_idiomatic.measure(bootstrap, FAUST_TOPIC, options.partitions, small, options.users),
        "floor": lambda: floor.measure(bootstrap, EVENTS, options.partitions, count, options.users),
        "floor_with_rows": lambda: floor_rows.measure(bootstrap, EVENTS, options.partitions, count, options.users),
        "floor_with_undecoded_rows": lambda: floor_rows.measure(
            bootstrap, EVENTS, options.partitions, count, options.users, undecoded=True
        ),
    }
    if "quix" in options.peers:
        few = await filled(QUIX_TOPIC, options.quix_events)
        contenders["quix"] = lambda: quix.measure(bootstrap, QUIX_TOPIC, few, options.users)
    if "kafka_streams" in options.peers:
        contenders["kafka_streams"] = lambda: streams.measure(bootstrap, EVENTS, count, options.users)
    await asyncio.to_thread(floor_rows.measure, bootstrap, EVENTS, options.partitions, count, options.users)
    return {name: await asyncio.to_thread(_outcome, name, measure) for name, measure in contenders.items()}


def _outcome(name: str, measure: Callable[[], Result]) -> Outcome:
    """A peer that fails is a reason; that one of ours fails is an error."""
    if name not in PEERS:
        return measure()
    try:
        return measure()
    except (PeerUnavailable, BenchmarkFailed) as exc:
        return str(exc)


def median(outcomes: Sequence[Outcome]) -> Outcome:
    """The median run; the first reason where no run succeeded."""
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    if not results:
        return outcomes[0]
    middle = statistics.median_low([result.events_per_second for result in results])
    return next(result for result in results if result.events_per_second == middle)


def ratios(turns: Sequence[Turn]) -> dict[str, list[float]]:
    """How the worker stood to each contender, by turn; nothing of a peer without a result.

    The machine's speed changes from minute to minute, and with it that of both: so a ratio is one of a turn, and the
    median of those counts.
    """
    found: dict[str, list[float]] = {}
    for turn in turns:
        for name, ratio in ratios_of(turn).items():
            found.setdefault(name, []).extend([] if ratio is None else [ratio])
    return found


def ratios_of(outcomes: Turn) -> dict[str, float | None]:
    """How the worker stands to each contender that was measured; None for a peer without a result.

    Events a second, but for Kafka Streams events a processor second: it runs as many threads as it has partitions.
    """
    ours = outcomes["nudge"]
    assert isinstance(ours, Result)

    def rate(name: str) -> float | None:
        other = outcomes.get(name)
        return ours.events_per_second / other.events_per_second if isinstance(other, Result) else None

    java = outcomes.get("kafka_streams")
    per_core = java.cpu_seconds_per_million / ours.cpu_seconds_per_million if isinstance(java, Result) else None
    return {
        "ratio_vs_faust": rate("faust"),
        "ratio_vs_quix": rate("quix"),
        "ratio_vs_kafka_streams": per_core,
        "share_of_floor": rate("floor"),
        "share_of_floor_with_rows": rate("floor_with_rows"),
        "share_of_floor_with_undecoded_rows": rate("floor_with_undecoded_rows"),
    }


def medians(turns: Sequence[Turn]) -> Turn:
    """The median run of each contender."""
    return {name: median([turn[name] for turn in turns]) for name in turns[0]}


def summary(options: Any, turns: Sequence[Turn]) -> dict[str, Any]:
    """The object of the last line."""
    outcomes, by_turn = medians(turns), ratios(turns)
    ours = outcomes["nudge"]
    assert isinstance(ours, Result)
    missing = {name: "not asked for (--peers)" for name in PEERS if name not in outcomes}
    missing |= {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, str)}
    return {
        "events_per_second": round(ours.events_per_second),
        **{name: round(statistics.median(found), 3) if found else None for name, found in by_turn.items()},
        "ratios_by_turn": {name: [round(ratio, 3) for ratio in found] for name, found in by_turn.items()},
        "cpu_seconds_per_million": round(ours.cpu_seconds_per_million, 2),
        "rss_mb": ours.rss_mb_max,
        "users": options.users,
        "keys": options.keys,
        "segments": ours.detail["segments"],
        "broker": f"Apache Kafka {kafka_version()}" if options.kafka else options.broker or "embedded",
        "peers_missing": missing,
        "contenders": {
            name: {
                "events_per_second": round(outcome.events_per_second),
                "cpu_seconds_per_million": round(outcome.cpu_seconds_per_million, 2),
                "rss_mb": outcome.rss_mb_max,
                "events": outcome.events,
            }
            for name, outcome in outcomes.items()
            if isinstance(outcome, Result)
        },
        "machine": machine(),
    }


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    taken = parser(__doc__, events=400_000)
    taken.add_argument("--faust-events", type=int, default=20_000, help="events for the idiomatic app")
    taken.add_argument("--quix-events", type=int, default=60_000, help="events for QuixStreams")
    taken.add_argument("--peers", default="", help=f"other engines, on real Kafka: {','.join(PEERS)}")
    taken.add_argument("--kafka", action="store_true", help="real Apache Kafka for all, started here (--peers implies)")
    taken.add_argument("--segments", type=int, choices=list(nudge_worker.POLICIES), default=20)
    taken.add_argument("--policy", type=Path, help="policy of the worker, instead of --segments")
    taken.add_argument("--cache-rows", type=int, default=1_000, help="decoded rows in the worker's memory")
    taken.add_argument("--keys", choices=["uniform", "zipf"], default="uniform", help="how users are drawn")
    taken.add_argument("--repeat", type=int, default=1, help="turns; the medians count, of rates and of ratios")
    return taken


def chosen(given: Sequence[str] | None = None) -> Any:
    """The command's arguments, completed; ends the process with a message when a peer is unknown."""
    taken = arguments()
    options = taken.parse_args(given)
    options.peers = tuple(filter(None, options.peers.split(",")))
    if unknown := set(options.peers) - set(PEERS):
        taken.error(f"unknown peers: {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    options.kafka = (options.kafka or bool(options.peers)) and not options.broker
    options.policy = options.policy or nudge_worker.POLICIES[options.segments]
    return options


def main() -> None:
    """Measure and print; the last line is one JSON object with --json."""
    options = chosen()
    turns = asyncio.run(run(options))
    outcomes = medians(turns)
    results = [outcome for outcome in outcomes.values() if isinstance(outcome, Result)]
    told = {name: statistics.median(found) for name, found in ratios(turns).items() if found}
    workload = describe(
        options.seed, keys=options.keys, users=options.users, events=options.events, partitions=options.partitions
    )
    print_results(results, workload, told, as_json=False)
    for name, outcome in outcomes.items():
        if isinstance(outcome, str):
            print(f"{name}: not measured: {outcome}")
    if options.json:
        print(json.dumps(summary(options, turns)))


if __name__ == "__main__":
    main()
