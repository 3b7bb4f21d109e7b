"""What was fetched and not begun: of a topic that has too much of it no more is taken until there is room.

Faust leaves single partitions out of a fetch when twelve messages wait for their agent. aiokafka then sends the broker
no fetch for 100 ms, since it holds records of that partition that nobody takes: decisions waited for 100 to 350 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Final

WAITING_RECORDS_MAX: Final = 8_192
WAITING_BATCHES_MAX: Final = 8
"""When so many wait, the next fetch is better sent later: it brings fewer and larger ones."""


class Backlog:
    """Records of each topic that wait for their agent.

    Examples
    --------
    >>> backlog = Backlog(limit=100)
    >>> backlog.delivered("events", 150)
    >>> backlog.full
    {'events'}
    >>> backlog.taken("events", 60)
    >>> backlog.full
    set()
    """

    def __init__(self, limit: int = WAITING_RECORDS_MAX, batches_max: int = WAITING_BATCHES_MAX) -> None:
        self._limit = limit
        self._batches_max = batches_max
        self._waiting: Counter[str] = Counter()
        self._batches: Counter[str] = Counter()
        self.full: set[str] = set()
        """Topics that are over the limit."""
        self._room = asyncio.Event()
        self.empty = asyncio.Event()
        """Set while nothing waits."""
        self.empty.set()

    def delivered(self, topic: str, records: int) -> None:
        """A batch is on its way to its agent."""
        self._waiting[topic] += records
        self._batches[topic] += 1
        self.empty.clear()
        if not self._has_room(topic):
            self.full.add(topic)

    def taken(self, topic: str, records: int) -> None:
        """The agent has begun with it, or dropped it. A batch from before `clear` may come, too."""
        self._waiting[topic] = max(0, self._waiting[topic] - records)
        self._batches[topic] = max(0, self._batches[topic] - 1)
        if not self._batches[topic] and not any(self._batches.values()):
            self.empty.set()
        if topic in self.full and self._has_room(topic):
            self.full.discard(topic)
            self._room.set()

    def waiting(self, topic: str) -> int:
        """Records of a topic that wait for their agent."""
        return self._waiting[topic]

    def clear(self) -> None:
        """What waits is dropped: the partitions are being given up or positioned anew."""
        self._waiting.clear()
        self._batches.clear()
        self.full.clear()
        self._room.set()
        self.empty.set()

    def _has_room(self, topic: str) -> bool:
        return self._waiting[topic] <= self._limit and self._batches[topic] <= self._batches_max

    async def room(self, timeout_s: float) -> None:
        """Return when a topic is no longer full, at the latest after `timeout_s`."""
        self._room.clear()
        if self.full:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), timeout_s)

    async def gather(self, settled: asyncio.Event, timeout_s: float) -> None:
        """Return when nothing waits and what was begun is `settled`, at the latest after `timeout_s`.

        Nagle's rule (RFC 896): little is fetched at a time only while nothing is on its way. Ten records take as much
        of the processor as fifty do, and what comes meanwhile goes together.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.empty.wait()
                await settled.wait()
