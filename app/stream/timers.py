"""The timer index: which rows are due, found without reading rows.

The truth is in the row (its header says when it is due); this index only says where to look, and may look early. It
keeps the invariant that a row due at t has an entry at or before t's bucket, so an entry is added only when a row's
due time moves earlier, and a row whose due time moved later is re-entered when its old entry comes up.

Nearly all of millions of rows are due hours or days from now. Their keys stand packed, a run of bytes for each hour, in
four bytes more than the key itself, where a set of Python's takes a hundred. An hour that is near is divided into
minutes, a little at each look so that none is held up, and the minute that has come into sets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Final

from app.core.panes import NEVER_MS

MINUTE: Final = 64
HOUR: Final = 64 * MINUTE
"""Buckets of a second."""
AHEAD: Final = 10 * MINUTE
"""How long before it begins an hour is divided."""
PORTION: Final = 500
"""Entries that a look divides: half a millisecond. At 20 looks a second that is six million before the hour begins."""
LATE_PORTION: Final = 20 * PORTION
"""When the hour has begun: after a restore of rows that are due within it, or a jump of the clock."""
_LONG: Final = 255
_UNIQUE_BYTES_MIN: Final = 4096


_PLACES: Final[list[bytes]] = [place.to_bytes(2, "big") for place in range(HOUR)]
_SIZES: Final[list[bytes]] = [bytes((size,)) for size in range(_LONG + 1)]


def _entry(place: int, key: bytes) -> bytes:
    size = len(key)
    if size < _LONG:
        return b"".join((_PLACES[place], _SIZES[size], key))
    return b"".join((_PLACES[place], _SIZES[_LONG], size.to_bytes(4, "big"), key))


class _Run:
    """Keys that are due at about the same time: of each the bucket after the run's first, its length, itself."""

    __slots__ = ("data", "entries", "limit")

    def __init__(self) -> None:
        self.data = bytearray()
        self.entries = 0
        self.limit = _UNIQUE_BYTES_MIN
        """Size at which it is looked through for keys that stand in it more than once."""

    def add(self, place: int, key: bytes) -> None:
        self.data += _entry(place, key)
        self.entries += 1

    def add_distinct(self, entries: list[bytes]) -> None:
        """Take entries of keys that it does not hold: it need not be looked through before as many more have come."""
        self.data += b"".join(entries)
        self.entries += len(entries)
        self.limit = max(self.limit, 2 * len(self.data))

    def make_unique(self) -> int:
        """Keep each key once, where it is first due; returns how many entries were too many."""
        first: dict[bytes, int] = {}
        for place, key in self:
            first[key] = min(place, first.get(key, place))
        before = self.entries
        if len(first) < before:
            self.data, self.entries = bytearray(), 0
            for key, place in first.items():
                self.add(place, key)
        self.limit = max(_UNIQUE_BYTES_MIN, 2 * len(self.data))
        return before - self.entries

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        data, at = bytes(self.data), 0
        while at < len(data):
            place, size = data[at] << 8 | data[at + 1], data[at + 2]
            at += 3
            if size == _LONG:
                size = int.from_bytes(data[at : at + 4], "big")
                at += 4
            yield place, data[at : at + size]
            at += size


class _Runs:
    """Entries in runs of `span` buckets."""

    def __init__(self, span: int) -> None:
        self._span = span
        self._runs: dict[int, _Run] = {}
        self._heap: list[int] = []
        self.entries = 0

    def add(self, bucket: int, key: bytes) -> None:
        number = bucket // self._span
        run = self._run(number)
        run.add(bucket - number * self._span, key)
        self.entries += 1
        if len(run.data) > run.limit:
            self.entries -= run.make_unique()

    def add_distinct(self, due: list[tuple[int, bytes]], bucket_ms: int) -> None:
        runs: dict[int, list[bytes]] = {}
        for due_ms, key in due:
            number, place = divmod(due_ms // bucket_ms, self._span)
            if number not in runs:
                runs[number] = []
            runs[number].append(_entry(place, key))
        for number, entries in runs.items():
            self._run(number).add_distinct(entries)
        self.entries += len(due)

    def _run(self, number: int) -> _Run:
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = _Run()
            heapq.heappush(self._heap, number)
        return run

    def take(self, before: int) -> Iterator[tuple[int, bytes]]:
        """The entries of every run that begins before that bucket, which leave as they are read."""
        while self._heap and self._heap[0] * self._span < before:
            number = heapq.heappop(self._heap)
            first = number * self._span
            for place, key in self._runs.pop(number):
                self.entries -= 1
                yield first + place, key


class TimerIndex:
    """Keys by due time in buckets of `bucket_ms`. Pure: time is an argument."""

    def __init__(self, bucket_ms: int = 1000) -> None:
        assert bucket_ms > 0
        self._bucket_ms = bucket_ms
        self._buckets: dict[int, dict[bytes, None]] = {}
        """Sets that keep an order, so that who is due at once is so in the same order in each process."""
        self._heap: list[int] = []
        self._minutes = _Runs(MINUTE)
        self._hours = _Runs(HOUR)
        self._sets_to = 0
        """Entries of buckets before it are in sets,"""
        self._minutes_to = 0
        """of buckets before this one in minutes,"""
        self._dividing: Iterator[tuple[int, bytes]] | None = None
        """but for those that are still on their way there,"""
        self._divided_by = 0
        """which should be there at this bucket."""

    def add(self, due_ms: int, key: bytes) -> None:
        """The row `key` must be looked at once `due_ms` has passed."""
        if due_ms < NEVER_MS:
            self._put(due_ms // self._bucket_ms, key)

    def add_all(self, due: list[tuple[int, bytes]]) -> None:
        """`add` each of them."""
        for due_ms, key in due:
            self.add(due_ms, key)

    def add_distinct(self, due: list[tuple[int, bytes]]) -> None:
        """As `add_all` of rows that are not in the index and are due once: a restore's, a third of the time."""
        if self._minutes_to:
            self.add_all(due)
        else:  # nothing was divided yet
            self._hours.add_distinct(due, self._bucket_ms)

    def _put(self, bucket: int, key: bytes) -> None:
        if bucket >= self._minutes_to:
            self._hours.add(bucket, key)
        elif bucket >= self._sets_to:
            self._minutes.add(bucket, key)
        elif (keys := self._buckets.get(bucket)) is not None:
            keys[key] = None
        else:
            self._buckets[bucket] = {key: None}
            heapq.heappush(self._heap, bucket)

    def _divide(self, bucket: int) -> None:
        """Divide a portion of the hour that is near, and the minute that has come."""
        if self._dividing is None and bucket + AHEAD >= self._minutes_to:
            self._divided_by = self._minutes_to
            self._minutes_to = ((bucket + AHEAD) // HOUR + 1) * HOUR
            self._dividing = self._hours.take(self._minutes_to)
        if self._dividing is not None:
            portion = LATE_PORTION if bucket >= self._divided_by else PORTION
            moved = 0
            for due, key in islice(self._dividing, portion):
                self._put(due, key)
                moved += 1
            if moved < portion:
                self._dividing = None
        if bucket >= self._sets_to:
            self._sets_to = (bucket // MINUTE + 1) * MINUTE
            for due, key in self._minutes.take(self._sets_to):
                self._put(due, key)

    def pop_due(self, now_ms: int, limit: int) -> list[bytes]:
        """At most `limit` keys whose bucket has ended by `now_ms`; they are no longer in the index."""
        self._divide(now_ms // self._bucket_ms)
        due: list[bytes] = []
        while self._heap and len(due) < limit and (self._heap[0] + 1) * self._bucket_ms <= now_ms:
            keys = self._buckets[self._heap[0]]
            while keys and len(due) < limit:
                due.append(keys.popitem()[0])
            if not keys:
                del self._buckets[heapq.heappop(self._heap)]
        return due

    def __len__(self) -> int:
        return self._hours.entries + self._minutes.entries + sum(len(keys) for keys in self._buckets.values())
