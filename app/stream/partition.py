"""What the engine holds of a partition, and of a chunk of it that is on its way to being durable."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from app.core.batch import add_up
from app.core.effects import Effects
from app.core.erasure import is_mark
from app.core.profile import Profile, RowEncoder
from app.core.row_heads import read_heads
from app.stream.replays import LOOKS, Doubt
from app.stream.timers import TimerIndex
from app.stream.unreadable import row_anew

GHOSTS: Final = 4
"""Keys that a cache remembers of rows that it let go, for each row that it may hold."""


class RowCache:
    """Decoded rows of one partition, at most `limit` of them between slices.

    A row is let go right after the slice that it was decoded for, while the processor still has it in its caches:
    freed a thousand rows later, it would have to be fetched from memory to be freed. Only who comes again soon (the
    key is one of `GHOSTS` x `limit` that were let go last, or of half as many) stays, first in, first out. Evicting is
    always safe: the table and the chunk know the newest bytes. (The ghosts are those of 2Q: Johnson & Shasha, VLDB
    1994. They are forgotten half of them at a time: a dict that loses its first entry each time is slow to find it.)
    """

    def __init__(self, limit: int) -> None:
        self.rows: dict[bytes, Profile] = {}
        self._ghosts: set[bytes] = set()
        self._older_ghosts: set[bytes] = set()
        self._limit = limit

    def end_slice(self, decoded: Sequence[bytes]) -> None:
        """Let go of rows that were decoded, or made, for a slice, but for those that come again soon."""
        rows, ghosts, older = self.rows, self._ghosts, self._older_ghosts
        for key in decoded:
            if key in ghosts or key in older:
                continue
            ghosts.add(key)
            if key in rows:
                del rows[key]
        if 2 * len(ghosts) >= GHOSTS * self._limit:
            self._older_ghosts, self._ghosts = ghosts, set()
        excess = len(rows) - self._limit
        if excess > 0:
            for key in list(itertools.islice(rows, excess)):
                del rows[key]


class Work:
    """What came of a chunk: merged effects, the newest bytes of each changed row, and how many rows are new."""

    __slots__ = ("_encoder", "added", "doubts", "effects", "rows", "unreadable")

    def __init__(self) -> None:
        self._encoder = RowEncoder()
        self.effects = Effects()
        self.rows: dict[bytes, bytes | None] = {}
        self.added = 0
        self.doubts: list[Doubt] = []
        """Where rows that passed events by say that their last event stands."""
        self.unreadable: dict[bytes, bytes] = {}
        """What stood in the place of a row and is none."""

    def replace(self, unreadable: Mapping[bytes, bytes], now_ms: int) -> None:
        """Have rows take the place of what is none, also where nothing else has changed them."""
        self.unreadable |= unreadable
        for key in unreadable:
            if key not in self.rows:
                self.rows[key] = self._encoder.encode(row_anew(key, now_ms))

    def add(self, effects: Effects, absent: set[bytes]) -> None:
        """Take in the effects of a slice; `absent` are the keys that had no row before it."""
        rows, encoder = self.rows, self._encoder
        for key, row in effects.changed.items():
            rows[key] = encoder.encode(row)
        if absent:
            self.added += len(absent.intersection(effects.changed))
        whole = self.effects
        whole.outputs += effects.outputs
        whole.due += effects.due
        whole.latencies_ms += effects.latencies_ms
        add_up(whole.counts, effects.counts)
        add_up(whole.members, effects.members)
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
        self.looks = LOOKS
        """How often it may still be looked up whether the log is the one that the rows were folded from."""

    def index(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Take in rows of a restore, each key once: when they are due, what they owe, whom segments have."""
        heads = read_heads(rows)
        self.timers.add_distinct(heads.due)
        self.owing += heads.owing
        self.marks += sum([is_mark(key) for key, _ in rows])
        for segment, number in heads.members().items():
            self.members[segment] = self.members.get(segment, 0) + number


class Settling:
    """A processed chunk on its way to being durable."""

    __slots__ = ("published", "task")

    def __init__(self) -> None:
        self.published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
