"""Pictures are drawn from what the benchmarks print, of those that there are, and stay small."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.plots import PNG_BYTES_MAX, draw

ENGINE = {
    "users": 100_000,
    "segments": 20,
    "broker": "embedded",
    "contenders": {name: {"events_per_second": rate} for name, rate in (("nudge", 30_000), ("faust", 1_400))},
}
LATENCY = {
    "users": 100_000,
    "broker": "embedded",
    "rates": [
        {"rate": 100, "p50_ms": 5.0, "p99_ms": 9.0, "p999_ms": None},
        {"rate": 5_000, "p50_ms": 8.0, "p99_ms": 20.0, "p999_ms": 31.0},
    ],
}
RESTORE = {
    "rows": 1_000_000,
    "broker": "embedded",
    "rows_per_second": 90_000,
    "warm_rows_per_second": 200_000,
    "faust_rows_per_second": 5_000,
}
SCALE = {
    "broker": "embedded",
    "runs": [
        {"users": users, "workers": workers, "cpu_us_per_event": cost}
        for users, workers, cost in ((10_000, 1, 30.0), (100_000, 1, 35.0), (100_000, 2, 36.0))
    ],
}


def test_each_result_has_a_small_picture_and_people_s_lines_before_it_do_not_matter(tmp_path: Path) -> None:
    for name, found in (("engine", ENGINE), ("latency", LATENCY), ("restore", RESTORE), ("scale", SCALE)):
        (tmp_path / f"{name}.json").write_text(f"cores 2\n{json.dumps(found)}\n")
    made = draw(tmp_path, tmp_path / "plots")
    assert [path.stem for path in made] == ["engine", "latency", "restore", "scale"]
    for path in made:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < PNG_BYTES_MAX


def test_a_benchmark_without_a_result_has_no_picture(tmp_path: Path) -> None:
    (tmp_path / "latency.json").write_text(json.dumps(LATENCY))
    assert [path.name for path in draw(tmp_path, tmp_path)] == ["latency.png"]
