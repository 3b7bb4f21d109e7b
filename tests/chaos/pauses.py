"""How long a partition stood still, from what its changelog says: every batch leaves rows there, with their time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.topics import EVENTS, PROFILES_CHANGELOG
from tests.support.site import Site


def longest_gaps_s(records: Iterable[Any], begin_ms: int, end_ms: int) -> dict[int, float]:
    """By partition: the longest time between two records in a row, of those between `begin_ms` and `end_ms`."""
    times: dict[int, list[int]] = {}
    for record in records:
        if record.key is not None and begin_ms <= record.timestamp <= end_ms:
            times.setdefault(record.partition, [begin_ms]).append(record.timestamp)
    return {
        partition: max(b - a for a, b in zip(found, [*found[1:], end_ms], strict=True)) / 1000
        for partition, found in ((p, sorted(at)) for p, at in times.items())
    }


async def longest_pauses_s(site: Site, spans: Iterable[tuple[int, int]]) -> tuple[list[float], float]:
    """Of each span of time the longest pause of any partition, and the longest of the events themselves.

    A partition without a row in a span stood still throughout.
    """
    rows, events = await site.records(PROFILES_CHANGELOG), await site.records(EVENTS)
    pauses, idle = [], 0.0
    for begin_ms, end_ms in spans:
        gaps = longest_gaps_s(rows, begin_ms, end_ms)
        whole_s = (end_ms - begin_ms) / 1000
        pauses.append(max(gaps.get(partition, whole_s) for partition in range(site.partitions)))
        idle = max([idle, *longest_gaps_s(events, begin_ms, end_ms).values()])
    return pauses, idle
