"""What valgrind counts is told an event, and without the counting itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.instructions import STEPS, functions, instructions, per_event


def test_what_counting_takes_is_no_step_s() -> None:
    made = per_event([100, 1_100, 2_100, 10_100, 600], 10)
    assert made == dict(zip(STEPS[1:], (100, 200, 1_000, 50), strict=True))


def test_totals_and_compiled_functions_are_read_from_callgrind_s_lines() -> None:
    assert instructions("events: Ir\nfn=(1)\nsummary: 1234\n") == 1_234
    lines = "12,000 (30%)  ???:CPyDef_fold___fold_event [/a.so]\n 9,000 (2%) ???:PyObject_Call [/b.so]\n"
    assert functions(lines + "6,000 (1%)  ???:CPyDef_batch___run [/a.so]\n", 10, 5) == {
        "fold.fold_event": 1_200,
        "batch.run": 600,
    }


def test_where_valgrind_is_not_installed_it_says_so(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.instructions", "--json"]
    made = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert "valgrind is not installed" in made.stdout
