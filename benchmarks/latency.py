"""From event to decision: how long it takes at given rates, as seen by whoever reads the decisions.

    python -m benchmarks.latency --json
    python -m benchmarks.latency --kafka --max 40000 --json

Broker, load, worker and reader are processes on one machine. The load is an open loop (`benchmarks.latency_load`): a
latency runs from the time for which the event was scheduled, whether or not it could be sent then, to the moment the
reader has the decision (so coordinated omission is avoided). One in five events causes a decision (`latency.yaml`);
a decision that does not come at all is counted with the whole time that was waited for it.

A broker that has just started compiles itself for most of a minute, and takes a processor of two for it: before the
first rate is measured, it gets a minute of load that is not counted.

With `--floor` each rate is offered again right after, to a relay that folds and decides nothing
(`benchmarks.latency_floor`), while the worker has nothing to do: what of a latency is the machine's, the broker's and
the reader's, in the same minute.

With `--brokers 3` the partitions are led by three brokers, and what is acknowledged stands on two of them at least.

An hour of a shared machine is not like another. With `--against PATH` workers of this checkout and of the other one
take turns on one broker, a new worker each time. Compile both, or neither.

    python -m benchmarks.latency --kafka --rates 5000 --seconds 15 --turns 3 --against /path/to/other/checkout --json
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.children import Child
from app.stream.started import started
from app.topics import create_topics
from benchmarks.common import AGAINST, HERE, ROOT, BenchmarkFailed, in_turn, machine, parser
from benchmarks.latency_floor import CONTRACT, relaying
from benchmarks.worker_process import WorkerProcess, until
from benchmarks.workload import broker_at, fill
from schemas.decisions import decode_decision
from schemas.topics import DECISIONS, EVENTS

POLICY: Final = Path(__file__).parent / "latency.yaml"
RATES: Final = "100,1000,5000,10000"
RATE_OF_THE_BAR: Final = 5_000
START_S_MAX: Final = 300.0
WAIT_S_MAX: Final = 30.0
BROKER_WARM_UP_S: Final = 60.0
WORKER_WARM_UP_S: Final = 4.0
QUANTILES: Final = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}


class Reader:
    """Reads decisions and notes when each came. They are decoded when somebody asks, after the load has ended."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._raw: list[tuple[bytes, int]] = []

    async def run(self, bootstrap: str, partitions: int) -> None:
        """Read until cancelled."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50
        )
        async with started(consumer):
            consumer.assign([TopicPartition(DECISIONS, partition) for partition in range(partitions)])
            while True:
                fetched = await consumer.getmany(timeout_ms=1_000)
                now_us = time.time_ns() // 1_000
                for records in fetched.values():
                    self.note((record.value for record in records), now_us)

    def note(self, values: Iterable[bytes], now_us: int) -> None:
        """Decisions that were received at `now_us`."""
        self._raw += [(raw, now_us) for raw in values]

    @property
    def seen(self) -> defaultdict[str, list[tuple[int, int]]]:
        """By run, pairs of scheduled and received time in microseconds, of events that have a scheduled time."""
        raw, self._raw = self._raw, []
        for value, received_us in raw:
            content = decode_decision(value).content
            run, colon, scheduled = content.body.removeprefix("at ").partition(":") if content else ("", "", "")
            if colon:
                self._seen[run].append((int(scheduled), received_us))
        return self._seen


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """By nearest rank; None where the sample is too small to have one: fewer than 1 / (1 - share) values.

    Examples
    --------
    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0], 0.99)
    (2.0, None)
    """
    if len(ordered) * (1 - share) < 1 - 1e-9:
        return None
    return ordered[math.ceil(share * len(ordered) - 1e-9) - 1]


def figures(rate: float, load: dict[str, Any], seen: Sequence[tuple[int, int]], waited_ms: float) -> dict[str, Any]:
    """What one rate came to.

    Parameters
    ----------
    load
        The report of `benchmarks.latency_load`.
    waited_ms
        What a decision that never came counts as.
    """
    found = sorted((received - scheduled) / 1e3 for scheduled, received in seen if scheduled >= load["from_us"])
    missing = max(0, load["expected"] - len(found))
    ordered = sorted(found + [waited_ms] * missing)
    quantiles = {name: quantile(ordered, share) for name, share in QUANTILES.items()}
    return {
        "rate": round(rate),
        **{name: None if found is None else round(found, 2) for name, found in quantiles.items()},
        "max_ms": round(ordered[-1], 2) if ordered else None,
        "decisions": len(found),
        "missing": missing,
        "sender_late_ms_max": load["sender_late_ms_max"],
    }


async def offered(
    options: Any, bootstrap: str, rate: float, seconds: float, run: str, warm_up_s: float, topic: str = EVENTS
) -> Any:
    """Have the load offered by a process of its own; its report."""
    with tempfile.TemporaryDirectory(prefix="nudge-bench-load-") as folder:
        report = Path(folder) / "report.json"
        given = {
            "broker": bootstrap,
            "topic": topic,
            "partitions": options.partitions,
            "rate": rate,
            "seconds": seconds,
            "warm-up-s": warm_up_s,
            "users": options.users,
            "seed": options.seed,
            "run": run,
            "report": report,
        }
        command = [sys.executable, "-m", "benchmarks.latency_load"]
        command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
        child = Child("load", command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            ended = await until(lambda: child.returncode is not None, 3 * seconds + WAIT_S_MAX)
            if not ended or child.returncode:
                raise BenchmarkFailed(f"the load ended with {child.returncode}:\n{child.log_tail()}")
            return json.loads(report.read_text())["detail"]
        finally:
            child.kill()
            child.stop()


async def measured(
    options: Any, bootstrap: str, reader: Reader, rate: float, run: str, topic: str = EVENTS
) -> dict[str, Any]:
    """Offer one rate and wait for all of its decisions."""
    load = await offered(options, bootstrap, rate, options.warm_up_s + options.seconds, run, options.warm_up_s, topic)

    def complete() -> bool:
        return sum(scheduled >= load["from_us"] for scheduled, _ in reader.seen[run]) >= load["expected"]

    began = time.monotonic()
    await until(complete, WAIT_S_MAX)
    waited_ms = (time.monotonic() - began + options.seconds) * 1e3
    return figures(rate, load, reader.seen[run], waited_ms)


async def floor(options: Any, bootstrap: str, reader: Reader, rate: float, run: str) -> dict[str, Any]:
    """The quantiles of the relay at that rate."""
    async with relaying(bootstrap, options.partitions, options.policy):
        found = await measured(options, bootstrap, reader, rate, run, CONTRACT.name)
    return {f"floor_{name}": found[name] for name in (*QUANTILES, "max_ms", "missing")}


async def uncounted(
    options: Any, bootstrap: str, worker: WorkerProcess, reader: Reader, rate: float, seconds: float, run: str
) -> None:
    """Offer a load whose latencies are not counted, and wait for all of its decisions."""
    load = await offered(options, bootstrap, rate, seconds, run, 0.0)

    def settled() -> bool:
        worker.check()
        return len(reader.seen[run]) >= load["expected"]

    if not await until(settled, START_S_MAX):
        raise BenchmarkFailed(f"the worker did not catch up:\n{worker.child.log_tail()}")


def worker_at(options: Any, bootstrap: str, checkout: Path = ROOT) -> WorkerProcess:
    """A new worker, in a group of its own."""
    return WorkerProcess(
        bootstrap,
        group=f"latency-{uuid.uuid4().hex[:8]}",
        partitions=options.partitions,
        policy=options.policy,
        idempotent=options.kafka or bool(options.broker),
        checkout=checkout,
    )


async def warmed(
    options: Any, bootstrap: str, worker: WorkerProcess, reader: Reader, seconds: float, run: str = ""
) -> None:
    """Have a worker catch up with what is in the topic, and so long at the rate of the bar, or at the highest."""
    # A second of events: their decisions come when the worker has caught up.
    await uncounted(options, bootstrap, worker, reader, 1_000, 1.0, f"first {run}")
    if seconds:
        rate = min(RATE_OF_THE_BAR, max(options.rates))
        await uncounted(options, bootstrap, worker, reader, rate, seconds, f"broker {run}")


async def alternated(options: Any, bootstrap: str, reader: Reader) -> list[dict[str, Any]]:
    """Measure each rate with a worker of this checkout and one of the other, in turn."""
    found: list[dict[str, Any]] = []
    checkouts = {HERE: ROOT, AGAINST: options.against.resolve()}
    for turn in range(options.turns):
        for name in in_turn(list(checkouts), turn):
            with worker_at(options, bootstrap, checkouts[name]) as worker:
                run = f"{name} {turn}"
                seconds = WORKER_WARM_UP_S if found else options.broker_warm_up_s
                await warmed(options, bootstrap, worker, reader, seconds, run)
                for rate in options.rates:
                    one = await measured(options, bootstrap, reader, rate, f"{run} {rate}")
                    found.append({"checkout": name, **one})
    return found


async def run(options: Any) -> list[dict[str, Any]]:
    """Measure each rate in turn, on one worker that has rows already."""
    async with broker_at(options.broker, kafka=options.kafka, brokers=options.brokers) as bootstrap:
        await create_topics(bootstrap, options.partitions, min(3, options.brokers))
        await fill(bootstrap, EVENTS, options.partitions, options.events, options.users, options.seed)
        reader = Reader()
        reading = asyncio.create_task(reader.run(bootstrap, options.partitions))
        try:
            if options.against is not None:
                return await alternated(options, bootstrap, reader)
            with worker_at(options, bootstrap) as worker:
                await warmed(options, bootstrap, worker, reader, options.broker_warm_up_s)
                found = []
                for number, rate in enumerate(options.rates):
                    found.append(await measured(options, bootstrap, reader, rate, str(number)))
                    if options.floor:
                        found[-1] |= await floor(options, bootstrap, reader, rate, f"floor {number}")
                return found
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


def chosen(given: Sequence[str] | None = None) -> Any:
    """The command's arguments, completed."""
    taken = parser(__doc__, events=200_000)
    taken.add_argument("--rates", default=RATES, help="events/s, by commas (default: %(default)s)")
    taken.add_argument("--max", type=float, help="the worker's greatest rate: adds 50 and 80 %% of it")
    taken.add_argument("--seconds", type=float, default=20.0, help="measured at each rate (default: %(default)s)")
    taken.add_argument("--warm-up-s", type=float, default=3.0, help="before that (default: %(default)s)")
    taken.add_argument(
        "--broker-warm-up-s", type=float, default=BROKER_WARM_UP_S, help="before the first rate (default: %(default)s)"
    )
    taken.add_argument("--policy", type=Path, default=POLICY)
    taken.add_argument("--floor", action="store_true", help="each rate again with a relay that decides nothing")
    taken.add_argument("--against", type=Path, help="another checkout of nudge, in turn with this one; no --floor")
    taken.add_argument("--turns", type=int, default=3, help="of each checkout, with --against (default: %(default)s)")
    taken.add_argument("--kafka", action="store_true", help="a real Apache Kafka, started here")
    taken.add_argument("--brokers", type=int, default=1, help="of that, each partition on at most three of them")
    options = taken.parse_args(given)
    if options.against is not None and options.floor:
        taken.error("--floor: not with --against")
    if options.brokers > 1 and not options.kafka:
        taken.error("--brokers: with --kafka")
    options.rates = [float(rate) for rate in options.rates.split(",")]
    options.rates += [options.max * share for share in (0.5, 0.8)] if options.max else []
    return options


def headline(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the bar's rate, or of the last one where it was not measured."""
    return next((one for one in found if one["rate"] == RATE_OF_THE_BAR), found[-1])


def main() -> None:
    """Measure and print; the last line is one JSON object with --json."""
    options = chosen()
    found = asyncio.run(run(options))
    for one in found:
        print("   ".join(f"{name} {value}" for name, value in one.items()))
    if options.json:
        shared = {"users": options.users, "seed": options.seed, "seconds": options.seconds}
        kafka = f"Apache Kafka, {options.brokers} brokers" if options.brokers > 1 else "Apache Kafka"
        broker = kafka if options.kafka else options.broker or "embedded"
        print(json.dumps({**headline(found), "rates": found, **shared, "broker": broker, "machine": machine()}))


if __name__ == "__main__":
    main()
