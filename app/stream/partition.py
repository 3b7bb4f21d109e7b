"""What the engine holds of a partition, and of a chunk of it that is on its way to being durable."""

from __future__ import annotations

import asyncio
import itertools

from app.core.effects import Effects
from app.core.profile import Profile, encode_profile
from app.stream.timers import TimerIndex


class RowCache:
    """Decoded rows of one partition, at most `limit` of them between batches; the oldest in the cache go first.

    Evicting is always safe: the table knows the bytes of rows that have not reached the store yet. First in, first out
    costs nothing for a row that is there; a busy user's row is decoded again once in each turn of the cache.
    """

    def __init__(self, limit: int) -> None:
        self.rows: dict[bytes, Profile] = {}
        self._limit = limit

    def trim(self) -> None:
        """Drop the rows over the limit."""
        excess = len(self.rows) - self._limit
        if excess > 0:
            for key in list(itertools.islice(self.rows, excess)):
                del self.rows[key]


class Work:
    """What came of a chunk: merged effects, the newest bytes of each changed row, and how many rows are new."""

    __slots__ = ("added", "effects", "rows")

    def __init__(self) -> None:
        self.effects = Effects()
        self.rows: dict[bytes, bytes | None] = {}
        self.added = 0

    def add(self, effects: Effects, absent: set[bytes]) -> None:
        """Take in the effects of a slice; `absent` are the keys that had no row before it."""
        for key, row in effects.changed.items():
            self.rows[key] = encode_profile(row)
        if absent:
            self.added += len(absent.intersection(effects.changed))
        whole = self.effects
        whole.outputs += effects.outputs
        whole.due += effects.due
        whole.latencies_ms += effects.latencies_ms
        whole.counts.update(effects.counts)
        whole.members.update(effects.members)
        whole.wished += effects.wished


class Partition:
    """What the engine holds of a partition.

    `lock` is held from reading rows to queueing them for the changelog: queueing may wait, and what another task wrote
    of the same row meanwhile would stand before it in the changelog, older though newer.
    """

    def __init__(self, cache_rows: int) -> None:
        self.cache = RowCache(cache_rows)
        self.timers = TimerIndex()
        self.members: dict[int, int] = {}
        self.marks = 0
        """Marks of erased users that were found or made: where there is none, nobody looks for them."""
        self.owing: list[bytes] = []
        self.position = 0
        self.committed = 0
        """The offset from which the partition was resumed: what follows from those below it is acknowledged."""
        self.lock = asyncio.Lock()
        self.newest: Settling | None = None


class Settling:
    """A processed chunk on its way to being durable."""

    __slots__ = ("published", "task")

    def __init__(self) -> None:
        self.published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
