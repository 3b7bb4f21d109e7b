"""The figures of the processes themselves, from their /metrics."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

TIMEOUT_S: Final = 2.0
_SAMPLE: Final = re.compile(r"^(nudge_[a-z_]+)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class Scraped(msgspec.Struct):
    """One process: its samples by metric, each with its labels; `problem` when it did not answer."""

    url: str
    problem: str = ""
    ready: bool = False
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over the samples that have these labels."""
        wanted = labels.items()
        return sum(value for found, value in self.samples.get(name, ()) if wanted <= found.items())

    def has(self, name: str, **labels: str) -> bool:
        """Whether the process exposes a sample with these labels."""
        return any(labels.items() <= found.items() for found, _ in self.samples.get(name, ()))

    def by(self, name: str, label: str) -> dict[str, float]:
        """A metric's sums by one of its labels."""
        sums: dict[str, float] = defaultdict(float)
        for found, value in self.samples.get(name, ()):
            sums[found.get(label, "")] += value
        return dict(sums)


def parse_metrics(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples of our own metrics in Prometheus' text format.

    `prometheus_client.parser` reads every form of it and takes fifty times as long, which counts once a second.
    """
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in _SAMPLE.findall(text):
        if not name.endswith("_created"):
            samples.setdefault(name, []).append((dict(_LABEL.findall(labels)) if labels else {}, float(value)))
    return samples


async def scrape(session: aiohttp.ClientSession, urls: Sequence[str]) -> list[Scraped]:
    """All processes at once; one that does not answer in `TIMEOUT_S` says so."""
    return list(await asyncio.gather(*(_scrape(session, url) for url in urls)))


async def _scrape(session: aiohttp.ClientSession, url: str) -> Scraped:
    try:
        async with session.get(f"{url}/metrics") as response:
            if response.status != 200:
                return Scraped(url, f"answers {response.status} for its metrics")
            text = await response.text()
        async with session.get(f"{url}/readyz") as response:
            ready = response.status == 200
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as exc:
        return Scraped(url, f"does not answer ({type(exc).__name__})")
    return Scraped(url, "", ready, parse_metrics(text))


def new_session() -> aiohttp.ClientSession:
    """A session whose requests are over in `TIMEOUT_S`."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))


def buckets(process: Scraped, name: str) -> dict[float, float]:
    """A histogram's cumulative counts by upper bound."""
    return {float(bound): number for bound, number in process.by(f"{name}_bucket", "le").items()}


def versions(process: Scraped) -> dict[str, Any]:
    """What a process says of its build."""
    for labels, _ in process.samples.get("nudge_build_info", ()):
        return {"version": labels.get("version", ""), "policy": labels.get("policy_version", "")}
    return {"version": "", "policy": ""}
