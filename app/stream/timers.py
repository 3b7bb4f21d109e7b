"""The timer index: which rows are due, found without reading rows.

The truth is in the row (its header says when it is due); this index only says where to look, and may look early. It
keeps the invariant that a row due at t has an entry at or before t's bucket, so an entry is added only when a row's
due time moves earlier, and a row whose due time moved later is re-entered when its old entry comes up.
"""

from __future__ import annotations

import heapq

from app.core.panes import NEVER_MS


class TimerIndex:
    """Keys by due time in buckets of `bucket_ms`. About 100 bytes an entry. Pure: time is an argument."""

    def __init__(self, bucket_ms: int = 1000) -> None:
        assert bucket_ms > 0
        self._bucket_ms = bucket_ms
        self._buckets: dict[int, set[bytes]] = {}
        self._heap: list[int] = []

    def add(self, due_ms: int, key: bytes) -> None:
        """The row `key` must be looked at once `due_ms` has passed."""
        if due_ms >= NEVER_MS:
            return
        bucket = due_ms // self._bucket_ms
        keys = self._buckets.get(bucket)
        if keys is None:
            self._buckets[bucket] = {key}
            heapq.heappush(self._heap, bucket)
        else:
            keys.add(key)

    def pop_due(self, now_ms: int, limit: int) -> list[bytes]:
        """At most `limit` keys whose bucket has ended by `now_ms`; they are no longer in the index."""
        due: list[bytes] = []
        while self._heap and len(due) < limit and (self._heap[0] + 1) * self._bucket_ms <= now_ms:
            keys = self._buckets[self._heap[0]]
            while keys and len(due) < limit:
                due.append(keys.pop())
            if not keys:
                del self._buckets[heapq.heappop(self._heap)]
        return due

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._buckets.values())
