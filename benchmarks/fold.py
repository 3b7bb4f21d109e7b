"""What an event costs the worker's own Python: rows decoded, events folded, rows encoded. No Kafka, no RocksDB.

    make compile
    python -m benchmarks.fold --json
    python -m benchmarks.fold --json --against /path/to/other/checkout
    python -m benchmarks.fold --json --policy benchmarks/latency.yaml

The workload and the policy are those of `benchmarks.engine` (with `latency.yaml` one event in five causes a decision
too, scored by the model's prior), through the engine's own `_fold`, with a dict in place of
the table and without what follows: changelog, timers, outputs. Figures are processor time of chunks of 1,024 events. A
machine that others use slows some chunks and speeds up none, so the figure is the tenth percentile of all chunks of all
turns; the median stands beside it. With `--against` the turns of the two checkouts alternate, each in a process of its
own that runs this file with the modules of that checkout. Compile both, or neither.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

from app.compiled import is_compiled
from app.core.features import open_features
from app.core.processor import Processor
from app.learning.serving import prior_scorer
from app.policy.load import load_policy
from app.stream.batch import RecordBatch
from app.stream.engine import CHUNK_RECORDS, Engine
from benchmarks.nudge_worker import POLICIES
from benchmarks.workload import events

TIMEOUT_S: Final = 600.0
UNACKED_EVENTS: Final = 4 * CHUNK_RECORDS
"""How far acknowledgements are behind: what rows owe is kept for so long."""
NOW_MS: Final = 1_790_000_000_000


class FoldRecord(NamedTuple):
    """A consumer record as far as the engine reads it."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int = NOW_MS
    headers: tuple[tuple[str, bytes], ...] = ()


class _Table:
    """The store of encoded rows."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def write(self, changed: dict[bytes, bytes | None]) -> None:
        for key, value in changed.items():
            assert value is not None, "nobody is erased"
            self.rows[key] = value


class _Batches:
    """What the engine asks of Faust's side: how far the outputs have been acknowledged. It is its own barrier."""

    def __init__(self) -> None:
        self.barrier = self
        self.acked_offset = 0

    def committable(self, _partition: tuple[str, int]) -> int:
        return self.acked_offset


def chunk_costs_us(
    count: int, users: int, seed: int, keys: str = "uniform", policy: Path = POLICIES[20]
) -> Iterator[float]:
    """Processor time of each chunk, microseconds an event, of `count` events whose rows are new at first."""
    records = [
        FoldRecord(key, value, offset)
        for offset, (key, value) in enumerate(events(count, users, seed, start_ms=NOW_MS - 600_000, keys=keys))
    ]
    table, batches = _Table(), _Batches()
    app = SimpleNamespace(batches=batches)
    processor = Processor(load_policy(policy), prior_scorer(), open_features)
    engine = Engine(cast("Any", app), cast("Any", table), "events", processor, cast("Any", None), lambda: NOW_MS)
    engine.begin_scan(0)
    gc.collect()
    gc.freeze()  # the workload is not the worker's garbage
    gc.set_threshold(50_000, 20, 100)  # as the worker's
    for start in range(0, count - count % CHUNK_RECORDS, CHUNK_RECORDS):
        chunk = records[start : start + CHUNK_RECORDS]
        batch = RecordBatch("events", 0, chunk, 0, lambda _: True, lambda _: None)
        batches.acked_offset = max(0, start - UNACKED_EVENTS)
        began = time.process_time()
        work = engine._fold(batch, chunk)
        yield (time.process_time() - began) * 1e6 / len(chunk)
        table.write(work.rows)


def turn(checkout: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One process over the workload, with the modules of that checkout."""
    command = [sys.executable, "-P", __file__, "--turn", f"--seed={seed}", f"--keys={options.keys}"]
    command += [f"--events={options.events}", f"--events-per-user={options.events_per_user}"]
    command += [f"--policy={options.policy.resolve()}"]
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    made = subprocess.run(
        command, cwd=checkout, env=env, timeout=TIMEOUT_S, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise SystemExit(f"a turn of {checkout} failed:\n{made.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def summary(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Microseconds an event, over the chunks of all turns of one checkout."""
    chunks = [cost for one in turns for cost in one["chunks_us"]]
    return {
        "us_per_event": round(statistics.quantiles(chunks, n=10)[0], 2),
        "us_per_event_p50": round(statistics.median(chunks), 2),
        "turns_us": [round(statistics.quantiles(one["chunks_us"], n=10)[0], 2) for one in turns],
        "compiled": turns[0]["compiled"],
    }


def main() -> None:
    """Measure this checkout, perhaps in alternation with another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000, help="a turn (default: %(default)s)")
    parser.add_argument("--events-per-user", type=float, default=3.0, help="(default: %(default)s)")
    parser.add_argument("--keys", choices=("uniform", "zipf"), default="uniform")
    parser.add_argument("--policy", type=Path, default=POLICIES[20])
    parser.add_argument("--seed", type=int, default=1, help="of the first turn")
    parser.add_argument("--turns", type=int, default=3, help="of each checkout (default: %(default)s)")
    parser.add_argument("--against", type=Path, help="another checkout of nudge")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--turn", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        users = max(1, round(options.events / options.events_per_user))
        costs = chunk_costs_us(options.events, users, options.seed, options.keys, options.policy)
        chunks = [round(cost, 3) for cost in costs]
        print(json.dumps({"chunks_us": chunks, "compiled": is_compiled()}))
        return
    measured = compare(options)
    for name, one in measured.items():
        print(f"{name:>8}: {one['us_per_event']:>6} us an event (median {one['us_per_event_p50']}) {one}")
    result: dict[str, Any] = dict(measured)
    if "against" in measured:
        result["ratio"] = round(measured["here"]["us_per_event"] / measured["against"]["us_per_event"], 3)
        print(f"   ratio: {result['ratio']}")
    if options.json:
        from benchmarks.common import machine  # noqa: PLC0415 - an older checkout's is of no interest

        workload = {name: getattr(options, name) for name in ("events", "events_per_user", "keys", "seed", "turns")}
        workload["policy"] = options.policy.name
        print(json.dumps({**result, "workload": workload, "machine": machine()}))


def compare(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The summary of each checkout; their turns alternate, and who is first in a pair does, too."""
    checkouts = {"here": Path(__file__).parents[1]}
    if options.against is not None:
        checkouts["against"] = options.against.resolve()
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for number in range(options.turns):
        names = list(checkouts)
        for name in reversed(names) if number % 2 else names:
            turns[name].append(turn(checkouts[name], options, options.seed + number))
    return {name: summary(some) for name, some in turns.items()}


if __name__ == "__main__":
    main()
