"""The newest outcome ids that were learned from: what keeps one that comes again from counting twice.

A worker that restarts repeats at most the outcomes of its uncommitted batches, so a bounded memory is enough. It is
part of a learner's snapshot: who goes on from it skips what it has.
"""

from __future__ import annotations

import struct
from collections import deque

from app.core.ids import message_hash


class RecentIds:
    """The newest `size_max` ids, by their hashes.

    Examples
    --------
    >>> seen = RecentIds(2)
    >>> [seen.add(name) for name in ("a", "a", "b", "c", "a")]
    [True, False, True, True, True]
    """

    def __init__(self, size_max: int) -> None:
        self._order: deque[int] = deque(maxlen=size_max)
        self._known: set[int] = set()

    def add(self, outcome_id: str) -> bool:
        """Remember an id, forgetting the oldest beyond the limit. False when it is known."""
        key = message_hash(outcome_id)
        if key in self._known:
            return False
        if len(self._order) == self._order.maxlen:
            self._known.discard(self._order[0])
        self._order.append(key)
        self._known.add(key)
        return True

    def to_bytes(self) -> bytes:
        """The hashes, oldest first, 8 bytes each, big-endian."""
        return struct.pack(f">{len(self._order)}q", *self._order)

    @classmethod
    def from_bytes(cls, raw: bytes, size_max: int) -> RecentIds:
        """The inverse of `to_bytes`. Raises `ValueError` when the bytes are torn."""
        if len(raw) % 8:
            raise ValueError(f"{len(raw)} bytes are no list of hashes")
        recent = cls(size_max)
        recent._order.extend(struct.unpack(f">{len(raw) // 8}q", raw))
        recent._known = set(recent._order)
        return recent
