"""Sends a second of one sender process, to the fake FCM over HTTP/2 and TLS, beside it in a process of its own.

python -m benchmarks.sender --json
python -m benchmarks.sender --whole --json                 # the process itself, between Kafka topics
python -m benchmarks.sender --slow --minutes 30 --json     # every answer takes 5 s: does memory stay flat?
python -m benchmarks.sender --whole --slow --delay 0.2 --minutes 20 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks import push_fake, push_process
from benchmarks.common import Result, machine, run_contender
from tests.support.push.keys import Keys, make_keys

VERSIONS_OF: Final = ("pyreqwest", "google-auth", "granian", "msgspec", "uvloop")
SLOW_S: Final = 5.0
_SAMPLE_S: Final = 1.0


class RssTrace:
    """The resident size of every process that is called as `module`, once a second. A context manager."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, float]] = []

    def _run(self) -> None:
        found: psutil.Process | None = None
        began_s = time.monotonic()
        while not self._stopped.wait(_SAMPLE_S):
            try:
                found = found or next((p for p in psutil.Process().children() if self._module in p.cmdline()), None)
                if found is not None:
                    self.samples.append((time.monotonic() - began_s, found.memory_info().rss / 2**20))
            except psutil.Error:
                found = None

    def __enter__(self) -> RssTrace:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def flatness(self) -> dict[str, Any]:
        """Resident size (MB) after the first fifth and at the end, and slopes (MB a minute) to the end."""
        steady = self.samples[len(self.samples) // 5 :]
        return {
            "rss_mb_start": round(float(np.mean([rss for _, rss in steady[:10]])), 1),
            "rss_mb_end": round(float(np.mean([rss for _, rss in steady[-10:]])), 1),
            "rss_mb_per_minute": _slope(steady),
            "rss_mb_per_minute_last_half": _slope(self.samples[len(self.samples) // 2 :]),
            "rss_mb_each_minute": [round(rss, 1) for at_s, rss in self.samples if at_s % 60.0 < _SAMPLE_S],
        }


def _slope(samples: list[tuple[float, float]]) -> float:
    seconds, rss_mb = np.array(samples).T
    return round(float(np.polyfit(seconds / 60.0, rss_mb, 1)[0]), 3)


def measure(keys: Keys, url: str, options: Any) -> Result:
    """One run of the sender's process."""
    seconds = options.minutes * 60.0 if options.slow else 0.0
    arguments = ["--url", url, "--ca", str(keys.ca), "--credentials", str(keys.account)]
    arguments += ["--decisions", str(options.decisions), "--concurrency", str(options.concurrency)]
    arguments += ["--seconds", str(seconds)]
    return run_contender(
        "nudge sender",
        "benchmarks.push_sender",
        arguments,
        events=options.decisions,
        users=options.decisions,
        timeout_s=seconds + 120.0,
    )


def run_whole(options: Any) -> dict[str, Any]:
    """The same of `nudge sender` as a process on an embedded broker."""
    seconds = options.minutes * 60.0 if options.slow else 0.0
    delay_s = options.delay if options.slow else 0.0
    # A slow provider must not get to the end of the topic.
    decisions = int(seconds * options.concurrency / delay_s) + 10_000 if delay_s else options.decisions
    with tempfile.TemporaryDirectory(prefix="nudge-bench-") as folder:
        keys = make_keys(Path(folder))
        with push_fake.serving(keys, delay_s=delay_s) as url, RssTrace("sender") as trace:
            results = [
                asyncio.run(push_process.measure(keys, url, decisions, options.concurrency, seconds=seconds))
                for _ in range(1 if options.slow else options.repeat)
            ]
    results.sort(key=lambda result: float(result["sends_per_second"]))
    runs = [result["sends_per_second"] for result in results]
    found = results[len(results) // 2] | {"concurrency": options.concurrency, "runs": runs}
    return found | (trace.flatness() if options.slow else {})


def run(options: Any) -> dict[str, Any]:
    """Measure `options.repeat` times; the median run counts."""
    with tempfile.TemporaryDirectory(prefix="nudge-bench-") as folder:
        keys = make_keys(Path(folder))
        delay_s = options.delay if options.slow else 0.0
        with push_fake.serving(keys, delay_s=delay_s) as url, RssTrace("benchmarks.push_sender") as trace:
            results = [measure(keys, url, options) for _ in range(1 if options.slow else options.repeat)]
    results.sort(key=lambda result: result.detail["sent"] / result.seconds)
    result = results[len(results) // 2]
    return {
        "sends_per_second": round(result.detail["sent"] / result.seconds, 1),
        "p50_ms": result.detail["p50_ms"],
        "p99_ms": result.detail["p99_ms"],
        "rss_mb": result.rss_mb_max,
        "cpu_us_per_send": result.detail["cpu_us_per_send"],
        "seconds": round(result.seconds, 2),
        "sent": result.detail["sent"],
        "outcomes": result.detail["outcomes"],
        "concurrency": options.concurrency,
        "runs": [round(each.detail["sent"] / each.seconds, 1) for each in results],
        **(trace.flatness() if options.slow else {}),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--decisions", type=int, default=30_000, help="a run (default: %(default)s)")
    arguments.add_argument(
        "--concurrency", type=int, default=64, help="NUDGE_SENDER_CONCURRENCY (default: %(default)s)"
    )
    arguments.add_argument("--repeat", type=int, default=3, help="runs; the median counts (default: %(default)s)")
    arguments.add_argument("--whole", action="store_true", help="the whole process, from Kafka to Kafka")
    arguments.add_argument("--slow", action="store_true", help="every answer takes long")
    arguments.add_argument("--delay", type=float, default=SLOW_S, help="seconds an answer takes, with --slow")
    arguments.add_argument("--minutes", type=float, default=10.0, help="with --slow (default: %(default)s)")
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    found, where = (run_whole if options.whole else run)(options), machine(VERSIONS_OF)
    print(", ".join(f"{key} {value}" for key, value in where.items() if key != "versions"))
    print(", ".join(f"{name} {version}" for name, version in where["versions"].items()))
    for key, value in found.items():
        print(f"{key:>20} {value}")
    if options.json:
        print(json.dumps(found | {"machine": where, "versions": where["versions"]}))


if __name__ == "__main__":
    main()
