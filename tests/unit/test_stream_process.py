"""How a process of ours ends: at once when it has stopped, and never without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.children import Child

ROOT = Path(__file__).parents[2]


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "torn_down",
    ["", "sys.stderr.close(); sys.stdout.close()", "log.critical = None", "logging.shutdown(); sys.stderr = None"],
)
def test_a_fatal_end_says_why_whatever_is_left_of_logging(torn_down: str) -> None:
    result = run(f"""
import logging, sys
from app.stream.app import StreamApp, log
{torn_down}
StreamApp.fatal(None, "it broke", OSError("no room"))
""")
    assert result.returncode == 70
    assert "nudge: exit code 70: it broke: OSError('no room')" in result.stderr


def test_a_process_ends_as_soon_as_its_app_has_stopped() -> None:
    result = run("""
import asyncio, time
from app.stream.process import Process
loop = asyncio.new_event_loop()
process = Process.__new__(Process)
process.loop, process._crash_reason, process._crashed = loop, None, asyncio.Event()
ended = []
async def forgotten():
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append(True)
async def begin():
    global task
    task = asyncio.create_task(forgotten())
    await asyncio.sleep(0)
loop.run_until_complete(begin())
began = time.monotonic()
process._shutdown_loop()
print(time.monotonic() - began < 0.5, ended, loop.is_closed())
""")
    assert result.stdout.split() == ["True", "[True]", "True"], result.stderr


def test_what_a_child_wrote_last_can_be_read_after_its_end(tmp_path: Path) -> None:
    child = Child("talker", [sys.executable, "-c", "print('why')"], log_path=tmp_path / "log")
    while child.returncode is None:
        pass
    child.stop()
    assert child.log_tail() == "why\n"
