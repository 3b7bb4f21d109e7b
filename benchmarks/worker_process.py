"""`nudge worker` as a process of its own, and what its endpoint says of it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil
from prometheus_client.parser import text_string_to_metric_families

from app.children import Child
from app.embedded import free_port
from benchmarks.common import ROOT, BenchmarkFailed

_POLL_S: Final = 0.05
_HTTP_S_MAX: Final = 10.0


async def until(condition: Callable[[], bool], timeout_s: float, poll_s: float = _POLL_S) -> bool:
    """Whether the condition came to hold in time. It may block: it runs in a thread."""
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(poll_s)
    return True


class WorkerProcess:
    """A running worker of `checkout` with a data folder of its own; both are gone when the context ends."""

    def __init__(
        self, bootstrap: str, *, group: str, partitions: int, policy: Path, idempotent: bool, checkout: Path = ROOT
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nudge-bench-worker-")
        self._port = free_port()
        environment = {
            "NUDGE_BROKER": bootstrap,
            "NUDGE_PROFILE": "dev",
            "NUDGE_APP_ID": group,
            "NUDGE_IDEMPOTENT": str(idempotent).lower(),
            "NUDGE_PARTITIONS": str(partitions),
            "NUDGE_DATA_DIR": self._folder.name,
            "NUDGE_POLICY": str(policy),
            "NUDGE_HTTP_PORT": str(self._port),
            "NUDGE_LOG_LEVEL": "warning",
            "PYTHONPATH": str(checkout),
        }
        self.child = Child("worker", [sys.executable, "-P", "-m", "app.cli", "worker"], env=os.environ | environment)

    @property
    def cpu_s(self) -> float:
        """User and system time since its start, seconds."""
        times = psutil.Process(self.child.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def rss_mb(self) -> float:
        """Resident size, in 2**20 bytes."""
        return float(psutil.Process(self.child.pid).memory_info().rss / 2**20)

    @property
    def disk_mb(self) -> float:
        """Size of its data folder, in 2**20 bytes."""
        return sum(file.stat().st_size for file in Path(self._folder.name).rglob("*") if file.is_file()) / 2**20

    @property
    def ready(self) -> bool:
        """What /readyz says."""
        return self._get("/readyz") is not None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's values with these labels; 0 when there are none."""
        text = self._get("/metrics") or ""
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def check(self) -> None:
        """Raise `BenchmarkFailed` when the process has ended."""
        if self.child.returncode is not None:
            raise BenchmarkFailed(f"the worker ended with {self.child.returncode}:\n{self.child.log_tail()}")

    def _get(self, path: str) -> str | None:
        """The answer's text; None when there is none, or an error."""
        self.check()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=_HTTP_S_MAX) as response:
                return str(response.read().decode())
        except (urllib.error.URLError, OSError):
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.kill()
        self.child.stop()
        self._folder.cleanup()
