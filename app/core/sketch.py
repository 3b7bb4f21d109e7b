"""How a number is distributed over the users, in a few hundred counters that add up.

Numbers fall into buckets of fixed bounds, each 1 % wide, so that sketches made anywhere can be merged by adding their
counters, and a quantile is right to within half a percent of the value (Masson, Rim, Lee, 2019: DDSketch: A Fast and
Fully-Mergeable Quantile Sketch with Relative-Error Guarantees). Thresholds are buckets too: who is above one is told by
the same function that counted them, so a share of the users is exact for the users that were counted.

Whole numbers up to 100 have a bucket each. Zero has its own; what is nearer to it than `SMALLEST` is taken for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

GAMMA: Final = 1.01
SMALLEST: Final = 1e-6
LARGEST: Final = 1e15
_LOG_GAMMA: Final = math.log(GAMMA)
_LOWEST: Final = math.floor(math.log(SMALLEST) / _LOG_GAMMA)
BUCKET_MAX: Final = math.ceil(math.log(LARGEST) / _LOG_GAMMA) - _LOWEST


def bucket_of(value: float) -> int:
    """The bucket of a number: 0 of zero, rising with the number, from `-BUCKET_MAX` to `BUCKET_MAX`.

    Examples
    --------
    >>> bucket_of(0.0), bucket_of(100) < bucket_of(101), bucket_of(5.0) == -bucket_of(-5.0)
    (0, True, True)
    """
    size = abs(value)
    if size < SMALLEST:
        return 0
    bucket = BUCKET_MAX if size >= LARGEST else math.ceil(math.log(size) / _LOG_GAMMA) - _LOWEST
    return bucket if value > 0 else -bucket


def middle_of(bucket: int) -> float:
    """A number for people that stands for a bucket: whole where the bucket has a whole number in it.

    Examples
    --------
    >>> middle_of(bucket_of(3)), middle_of(bucket_of(0)), round(middle_of(bucket_of(1234.5)) / 1234.5, 2)
    (3.0, 0.0, 1.0)
    """
    if not bucket:
        return 0.0
    size: float = GAMMA ** (abs(bucket) + _LOWEST - 0.5)
    if bucket_of(round(size)) == abs(bucket):
        size = float(round(size))
    return size if bucket > 0 else -size


def above(value: float | None, cut: int | None) -> bool:
    """Whether a number is in a bucket above the threshold; False when either is missing."""
    return value is not None and cut is not None and bucket_of(value) > cut


def below(value: float | None, cut: int | None) -> bool:
    """Whether a number is in a bucket below the threshold; False when either is missing."""
    return value is not None and cut is not None and bucket_of(value) < cut


class Sketch:
    """How many users are in which bucket."""

    __slots__ = ("counts", "users")

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: dict[int, int] = {}
        self.users = 0
        self.add(counts)

    def put(self, value: float) -> None:
        """One user more. A number that is none is passed by."""
        if value == value:
            bucket = bucket_of(value)
            self.counts[bucket] = self.counts.get(bucket, 0) + 1
            self.users += 1

    def add(self, counts: Iterable[tuple[int, int]]) -> None:
        """The users of another sketch as well."""
        for bucket, users in counts:
            self.counts[bucket] = self.counts.get(bucket, 0) + users
            self.users += users

    def share_above(self, cut: int) -> float:
        """Share of the users in buckets above `cut`; 0 of nobody."""
        return sum(users for bucket, users in self.counts.items() if bucket > cut) / max(self.users, 1)

    def share_below(self, cut: int) -> float:
        """Share of the users in buckets below `cut`; 0 of nobody."""
        return sum(users for bucket, users in self.counts.items() if bucket < cut) / max(self.users, 1)

    def cut_above(self, share: float) -> int:
        """The lowest bucket above which there are no more than `share` of the users."""
        left = share * self.users
        for bucket in sorted(self.counts, reverse=True):
            left -= self.counts[bucket]
            if left < 0:
                return bucket
        return -BUCKET_MAX - 1

    def cut_below(self, share: float) -> int:
        """The highest bucket below which there are no more than `share` of the users."""
        left = share * self.users
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left < 0:
                return bucket
        return BUCKET_MAX + 1
