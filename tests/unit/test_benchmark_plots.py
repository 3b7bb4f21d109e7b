"""Pictures are drawn from what the benchmarks print, of those that there are, and stay small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.plots import DRAWN, PLOTS, PNG_BYTES_MAX, RESULTS, draw, read

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


def test_runs_of_several_turns_are_shown_together_and_the_later_of_two_alike_counts() -> None:
    whole = {"broker": "Kafka", "runs": [{"users": 10, "workers": 1}, {"users": 100, "workers": 1, "cost": 1}]}
    again = {"broker": "other", "runs": [{"users": 100, "workers": 1, "cost": 2}]}
    printed = f"cores 2\n{json.dumps(whole)}\ncores 2\n{json.dumps(again)}\n"
    found = read("scale", printed)
    assert found["broker"] == "other"
    assert found["runs"] == [{"users": 10, "workers": 1}, {"users": 100, "workers": 1, "cost": 2}]
    assert read("restore", f"{json.dumps({'rows': 1})}\n{json.dumps({'rows': 2})}") == {"rows": 2}


def test_a_result_without_json_is_named() -> None:
    with pytest.raises(ValueError, match=r"engine\.json has no line"):
        read("engine", "cores 2\n")


def test_every_recorded_result_has_its_picture() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} == set(DRAWN)
    assert {f"{name}.png" for name in DRAWN} <= {path.name for path in PLOTS.iterdir()}
