"""What the worker's own benchmark makes of its turns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.alone import in_turn, summary
from benchmarks.common import Result, run_contender
from benchmarks.nudge_worker import thread_ns


def turn(events_per_second: float, **detail: float) -> Result:
    return Result("it", 1_000, 10, 1_000 / events_per_second, rss_mb_max=1.0, cpu_s=1.0, detail=detail)


def test_the_ratio_is_the_median_of_the_turns_ratios() -> None:
    told = summary({"here": [turn(100), turn(300), turn(900)], "against": [turn(50), turn(100), turn(100)]})
    assert told["ratios"] == [2.0, 3.0, 9.0]
    assert told["ratio"] == 3.0
    assert told["here"]["events_per_second"] == 300
    assert told["here"]["events_per_second_max"] == 900


def test_shares_that_one_turn_lacks_are_left_out() -> None:
    whole, part = turn(1, thread_running=0.9, thread_waiting=0.1), turn(1, thread_running=0.9)
    assert summary({"here": [whole, whole]})["here"]["thread_waiting"] == 0.1
    assert "thread_waiting" not in summary({"here": [whole, part]})["here"]


def test_who_is_first_is_second_in_the_next_turn() -> None:
    assert [in_turn(["a", "b"], number) for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_a_contender_is_run_with_the_modules_of_its_checkout(tmp_path: Path) -> None:
    code = "import json, sys; open(sys.argv[2], 'w').write(json.dumps({'seconds': 1, 'detail': {'of': __file__}}))"
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "it.py").write_text(code)
    result = run_contender("it", "benchmarks.it", [], events=1, users=1, timeout_s=30, checkout=tmp_path)
    assert result.detail == {"of": str(tmp_path / "benchmarks" / "it.py")}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")
def test_the_time_that_a_thread_runs_grows() -> None:
    before = thread_ns()
    sum(range(1_000_000))
    after = thread_ns()
    assert before is not None
    assert after is not None
    assert after[0] > before[0]
