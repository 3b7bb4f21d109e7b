"""What every benchmark shares: arguments, the machine and versions, sampling of a process, and how results are printed.

A benchmark prints for people first; its last line is one JSON object where --json was given.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psutil

from app.children import Child
from app.compiled import is_compiled

ROOT: Final = Path(__file__).parents[1]
HERE: Final = "here"
AGAINST: Final = "against"
"""Two checkouts that are compared."""
VERSIONS_OF: Final = ("nudge-engine", "faust-streaming", "aiokafka", "msgspec", "rocksdict", "river", "uvloop")
_SAMPLE_S: Final = 0.2


class BenchmarkFailed(RuntimeError):
    """A measured process ended or did not finish; the message holds the end of its output."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender did with a workload.

    Parameters
    ----------
    seconds
        From the first event received to the last one processed: start-up and joining the group do not count.
    rss_mb_max, cpu_s
        Of the process and its children, from its start; MB is 2**20 bytes.
    work_cpu_s
        Processor time of the process in `seconds`, of contenders that take it themselves.
    detail
        Whatever else should stand beside the figure: settings, counts.
    """

    name: str
    events: int
    users: int
    seconds: float
    rss_mb_max: float
    cpu_s: float
    detail: dict[str, Any] = field(default_factory=dict)
    work_cpu_s: float | None = None

    @property
    def cpu_seconds_per_million(self) -> float:
        """Processor seconds a million events, without the start where the contender can tell."""
        return (self.cpu_s if self.work_cpu_s is None else self.work_cpu_s) / self.events * 1e6

    @property
    def events_per_second(self) -> float:
        """Throughput."""
        return self.events / self.seconds

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return asdict(self) | {"events_per_second": round(self.events_per_second, 1)}

    def line(self) -> str:
        """The result for people."""
        return (
            f"{self.name:<28} {self.events_per_second:>12,.0f} events/s   {self.events:>9,} events"
            f"   {self.seconds:>7.2f} s   RSS {self.rss_mb_max:>6.0f} MB   CPU {self.cpu_s:>6.1f} s"
            f"   {self.cpu_seconds_per_million:>7.1f} CPU s per million"
        )


class ProcessSampler:
    """Samples the memory and processor time of a process and its children until told to stop. A context manager."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._cpu_s: dict[int, float] = {}
        self.rss_bytes_max = 0

    @property
    def rss_mb_max(self) -> float:
        """The largest resident size seen, in 2**20 bytes."""
        return round(self.rss_bytes_max / 2**20, 1)

    @property
    def cpu_s(self) -> float:
        """User and system time, seconds; the last sample of a child that ended counts."""
        return round(sum(self._cpu_s.values()), 2)

    def sample(self) -> None:
        """Look once."""
        rss_bytes = 0
        for process in self._family():
            try:
                times = process.cpu_times()
                rss_bytes += process.memory_info().rss
            except psutil.Error:  # it ended between two looks
                continue
            self._cpu_s[process.pid] = times.user + times.system
        self.rss_bytes_max = max(self.rss_bytes_max, rss_bytes)

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return []

    def _run(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            self.sample()

    def __enter__(self) -> Self:
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self.sample()


def run_contender(
    name: str,
    module: str,
    arguments: Sequence[str],
    *,
    events: int,
    users: int,
    timeout_s: float,
    checkout: Path = ROOT,
) -> Result:
    """Run a contender as a process of its own and wait for its report.

    Parameters
    ----------
    module
        Runs as ``python -m module ARGUMENTS --report FILE`` and writes to FILE, by a rename, what `write_report` does.
    checkout
        Whose modules are run.

    Raises
    ------
    BenchmarkFailed
        When the process ends without a report, or `timeout_s` passes.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    return run_command(name, command, events=events, users=users, timeout_s=timeout_s, checkout=checkout)


def run_command(
    name: str,
    command: Sequence[str],
    *,
    events: int,
    users: int,
    timeout_s: float,
    report_option: Sequence[str] = ("--report",),
    checkout: Path = ROOT,
) -> Result:
    """As `run_contender`, of any command; `report_option` comes before the report's path, which comes last."""
    with tempfile.TemporaryDirectory(prefix="nudge-bench-") as folder:
        report = Path(folder) / "report.json"
        whole = [*command, *report_option, str(report)]
        child = Child(name, whole, env={**os.environ, "PYTHONPATH": str(checkout)})
        try:
            with ProcessSampler(child.pid) as sampler:
                await_report(child, report, timeout_s)
        finally:
            child.kill()
            child.stop()
        found = json.loads(report.read_text())
    return Result(
        name,
        events,
        users,
        found["seconds"],
        sampler.rss_mb_max,
        sampler.cpu_s,
        found["detail"],
        work_cpu_s=found.get("cpu_s"),
    )


def in_turn(names: list[str], number: int) -> list[str]:
    """Who comes first is second in the next turn."""
    return names[::-1] if number % 2 else names


def await_report(child: Child, report: Path, timeout_s: float) -> None:
    """Return when the process has left its report; blocks.

    Raises
    ------
    BenchmarkFailed
        When the process ends without a report, or `timeout_s` passes.
    """
    deadline = time.monotonic() + timeout_s
    while not report.exists():
        if child.returncode is not None and not report.exists():
            raise BenchmarkFailed(f"{child.name} ended with {child.returncode}:\n{child.log_tail()}")
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"{child.name} did not finish in {timeout_s:.0f} s:\n{child.log_tail()}")
        time.sleep(_SAMPLE_S / 4)


def write_report(path: Path, seconds: float, detail: dict[str, Any], cpu_s: float | None = None) -> None:
    """What a contender's process leaves for `run_contender`; whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"seconds": seconds, "detail": detail, "cpu_s": cpu_s}))
    part.rename(path)


def parser(
    description: str | None, *, users: int = 100_000, events: int = 300_000, brokers: bool = True
) -> argparse.ArgumentParser:
    """The arguments of every benchmark; a benchmark may add its own. `brokers`: it can run on one that is there."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--users", type=int, default=users, help="distinct users (default: %(default)s)")
    arguments.add_argument("--events", type=int, default=events, help="events to process (default: %(default)s)")
    arguments.add_argument("--partitions", type=int, default=4, help="partitions of the topic (default: %(default)s)")
    arguments.add_argument("--seed", type=int, default=1, help="of the workload (default: %(default)s)")
    if brokers:
        arguments.add_argument("--broker", default="", help="HOST:PORT of a broker; an embedded one when not given")
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return arguments


def machine(also: Sequence[str] = ()) -> dict[str, Any]:
    """Where this ran; no names of hosts or people. `also` names further packages whose versions matter."""
    names = (*VERSIONS_OF, *also)
    versions = {name: importlib.metadata.version(name) for name in names if _installed(name)}
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "core": "compiled" if is_compiled() else "interpreted",
        "versions": versions,
    }


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def print_results(
    results: Sequence[Result], workload: dict[str, Any], ratios: dict[str, float], *, as_json: bool
) -> None:
    """Print the machine, the workload, a line a contender, the ratios, and the JSON object when asked for."""
    where = machine()
    print(", ".join(f"{key} {value}" for key, value in where.items() if key != "versions"))
    print(", ".join(f"{name} {version}" for name, version in where["versions"].items()))
    print(", ".join(f"{key} {value}" for key, value in workload.items()))
    for result in results:
        print(result.line())
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if as_json:
        whole = {"machine": where, "workload": workload, "ratios": ratios}
        print(json.dumps({**whole, "results": {result.name: result.as_json() for result in results}}))
