"""Many seeds: ``python -m tests.simulation --seeds 1000 --json``; one again: ``--seed 87``.

With one version of Python a seed takes the same course in each process; `steps` tell whether it has.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tests.simulation.scenario import quiet, simulate

FIGURES = (
    "events",
    "decisions",
    "outcomes",
    "offers",
    "counted",
    "lost",
    "over_counted",
    "rows_different",
    "missing",
    "spurious",
    "contradictions",
    "steps",
)


def run(seeds: range, processes: int) -> dict[str, Any]:
    """Run seeds and add their figures up; what went wrong is listed by seed."""
    began = time.monotonic()
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    failed: dict[int, Any] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=quiet) as pool:
        for report in pool.map(simulate, seeds, chunksize=10):
            total.update({name: report[name] for name in FIGURES})
            faults.update(report["faults"])
            if report["violations"]:
                failed[report["seed"]] = report
                print(f"seed {report['seed']}: {json.dumps(report)}", file=sys.stderr, flush=True)
    return {
        "seeds": len(seeds), **{name: total[name] for name in FIGURES}, "failed_seeds": sorted(failed),
        "faults": dict(sorted(faults.items())), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def main() -> None:
    """Exit 1 when a seed was violated."""
    arguments = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    arguments.add_argument("--seeds", type=int, default=1000, help="how many")
    arguments.add_argument("--first", type=int, default=0, help="the first of them")
    arguments.add_argument("--seed", type=int, help="only this one")
    arguments.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    if options.seed is not None:
        seeds, options.processes = range(options.seed, options.seed + 1), 1
    else:
        seeds = range(options.first, options.first + options.seeds)
    figures = run(seeds, options.processes)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if options.json:
        print(json.dumps(figures))
    raise SystemExit(bool(figures["failed_seeds"]))


if __name__ == "__main__":
    main()
