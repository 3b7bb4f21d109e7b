"""Who is in which segments, from a stream of rows in which only the newest of a user counts, in bounded memory.

Exact up to a number of users. With more, users are kept by the hash of their key, and the share that is kept is halved
whenever there are too many: a uniform sample of users, whatever the order and number of their records (distinct
sampling; Gibbons 2001, "Distinct Sampling for Highly-Accurate Answers to Distinct Values Queries").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import xxhash

USERS_MAX: Final = 500_000
"""Users that are kept: about 200 bytes each."""


class Memberships:
    """The newest segments of each user that is kept."""

    def __init__(self, users_max: int = USERS_MAX) -> None:
        self._users_max = users_max
        self._halvings = 0
        self.unreadable = 0
        """Records that were no rows."""
        self._segments: dict[bytes, tuple[int, ...]] = {}
        self._same: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def share(self) -> float:
        """Of the users, those who are kept: 1 as long as everything is exact."""
        return float(0.5**self._halvings)

    def put(self, user: bytes, segments: Iterable[int] | None) -> None:
        """The user is in these segments now; None when there is no such user any more."""
        if not self._keeps(user):
            return
        if segments is None:
            self._segments.pop(user, None)
            return
        found = tuple(sorted(segments))
        self._segments[user] = self._same.setdefault(found, found)  # most users are as many others are
        while len(self._segments) > self._users_max:
            self._halvings += 1
            self._segments = {key: value for key, value in self._segments.items() if self._keeps(key)}

    def _keeps(self, user: bytes) -> bool:
        return not self._halvings or xxhash.xxh3_64_intdigest(user) % (1 << self._halvings) == 0

    def __len__(self) -> int:
        return len(self._segments)

    def combinations(self) -> Counter[tuple[int, ...]]:
        """How many of the users kept are in exactly these segments."""
        return Counter(self._segments.values())
