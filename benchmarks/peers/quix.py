"""QuixStreams on the job, in a virtual environment of its own: it wants other versions of pydantic than we do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from benchmarks.common import Result, run_command
from benchmarks.peers.environment import built, checked

NAME: Final = "QuixStreams"
_FOLDER: Final = Path(__file__).parent / "quix"
_REQUIREMENTS: Final = _FOLDER / "requirements.txt"


def measure(bootstrap: str, topic: str, count: int, users: int, *, timeout_s: float = 400.0) -> Result:
    """Process the `count` events that `topic` holds already, on real Kafka.

    Raises
    ------
    PeerUnavailable
        When its environment cannot be built.
    BenchmarkFailed
        When it ends early or does not finish.
    """
    python = built("quix", [_REQUIREMENTS], _build) / "venv" / "bin" / "python"
    command = [str(python), "-W", "ignore", str(_FOLDER / "windowed_count.py")]
    command += ["--broker", bootstrap, "--topic", topic, "--events", str(count)]
    return run_command(NAME, command, events=count, users=users, timeout_s=timeout_s)


def _build(folder: Path) -> None:
    checked([sys.executable, "-m", "venv", str(folder / "venv")], "making a virtual environment")
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    checked([*pip, "-r", str(_REQUIREMENTS)], "installing QuixStreams")
