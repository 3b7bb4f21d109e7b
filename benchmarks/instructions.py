"""How many instructions an event takes: a figure that a busy machine does not blur. Needs valgrind.

    make compile
    python -m benchmarks.instructions --json

The workload is that of `benchmarks.core` with `--segments`. Of the last `--events` events the first of each user is
taken and four steps are counted, each for all of these: decoding the event, decoding its row, processing (which decodes
the event, folds it, and asks segments, triggers and arbiter), and encoding the row. Of the compiled core the functions
that most of the processing went through are named, each with all that it calls. An instruction that waits for memory
counts as any other.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from app.core.features import open_features
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from benchmarks.common import ROOT, machine
from benchmarks.core import SLICE_RECORDS, SPAN_MS, START_MS, BenchRecord, ConstantScorer, make_plan, records
from schemas.events import decode_event

PROCESS: Final = "process"
STEPS: Final = ("nothing", "decode event", "decode row", PROCESS, "encode row")
"""The first is what counting itself takes; it is taken from the others."""
_COMPILED: Final = re.compile(r"^\s*([\d,]+) .*:CPyDef_(\w+)")
_SUMMARY: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)
TIMEOUT_S: Final = 900.0


def counted(options: argparse.Namespace, folder: Path) -> tuple[list[Path], int]:
    """Run the workload under valgrind; what callgrind wrote, a file for each step, and how many events were counted."""
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out", "-q"]
    command += [sys.executable, "-m", __spec__.name, "--counted"]
    command += [f"--{name}={getattr(options, name)}" for name in ("events", "warm", "users", "segments", "seed")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    made = subprocess.run(command, check=True, timeout=TIMEOUT_S, env=env, stdout=subprocess.PIPE, text=True)
    return [folder / f"out.{number}" for number in range(1, len(STEPS) + 1)], int(made.stdout)


def instructions(text: str) -> int:
    """The instructions of one of callgrind's files."""
    found = _SUMMARY.search(text)
    assert found, "callgrind wrote no total"
    return int(found[1])


def per_event(totals: list[int], events: int) -> dict[str, int]:
    """Instructions an event by step, of the totals in the order of `STEPS`."""
    nothing, *others = totals
    return {name: round((total - nothing) / events) for name, total in zip(STEPS[1:], others, strict=True)}


def functions(annotated: str, events: int, limit: int) -> dict[str, int]:
    """Instructions an event by compiled function, what it calls included, of `callgrind_annotate`'s lines."""
    found: dict[str, int] = {}
    for line in annotated.splitlines():
        if match := _COMPILED.match(line):
            found.setdefault(match[2].replace("___", "."), round(int(match[1].replace(",", "")) / events))
    return dict(list(found.items())[:limit])


def _step(name: str, work: Callable[[], Any]) -> None:
    """Count the instructions of `work` and have them written to a file."""
    _control("-z")
    work()
    _control("-d", name)


def _control(*order: str) -> None:
    made = subprocess.run(["callgrind_control", *order, str(os.getpid())], check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def _run(options: argparse.Namespace) -> None:
    """The counted process."""
    total = options.warm + options.events
    stream = list(records(total, options.users, options.seed))
    processor = Processor(make_plan(options.segments), ConstantScorer(), open_features)
    rows: dict[bytes, Profile] = {}

    def process(part: list[BenchRecord]) -> None:
        for start in range(0, len(part), SLICE_RECORDS):
            some = part[start : start + SLICE_RECORDS]
            now_ms = START_MS + SPAN_MS * (some[-1].offset + 1) // total
            processor.process(some, "events", 0, rows, now_ms=now_ms, acked_offset=some[0].offset, reload=rows.get)

    process(stream[: options.warm])
    # An event a user, of rows that are decoded for it: as with many users, of whom few come again within a slice.
    first = {record.key: record for record in reversed(stream[options.warm :]) if record.key in rows}
    last = sorted(first.values(), key=attrgetter("offset"))
    raw = {record.key: encode_profile(rows[record.key]) for record in last}
    works: list[Callable[[], Any]] = [
        lambda: None,
        lambda: [decode_event(record.value, record.key) for record in last],
        lambda: rows.update((key, decode_profile(row)) for key, row in raw.items()),
        lambda: process(last),
        lambda: [encode_profile(rows[record.key]) for record in last],
    ]
    gc.disable()
    _control("-i", "on")
    for name, work in zip(STEPS, works, strict=True):
        _step(name, work)
    print(len(last))


def main() -> None:
    """Count and print; without valgrind say so."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=4_000, help="of which are counted (default: %(default)s)")
    arguments.add_argument("--warm", type=int, default=20_000, help="before them (default: %(default)s)")
    arguments.add_argument("--users", type=int, default=2_000)
    arguments.add_argument("--segments", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--functions", type=int, default=20, help="that are named (default: %(default)s)")
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.counted:
        _run(options)
        return
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (Debian: valgrind); nothing was counted")
        return
    with tempfile.TemporaryDirectory(prefix="nudge-bench-") as folder:
        files, events = counted(options, Path(folder))
        steps = per_event([instructions(path.read_text()) for path in files], events)
        annotate = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(files[STEPS.index(PROCESS)])]
        annotated = subprocess.run(annotate, check=True, capture_output=True, text=True).stdout
    named = functions(annotated, events, options.functions)
    for name, number in {**steps, **named}.items():
        print(f"{name:>40}  {number:>8,} instructions an event")
    if options.json:
        workload = {name: getattr(options, name) for name in ("events", "warm", "users", "segments", "seed")}
        print(json.dumps({"steps": steps, "functions": named, "workload": workload, "machine": machine()}))


if __name__ == "__main__":
    main()
