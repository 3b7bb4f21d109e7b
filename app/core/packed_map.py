"""What maps of packed numbers have in common: they look like dicts to whoever is not in a hurry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from librt.vecs import append, vec
from mypy_extensions import i64, mypyc_attr

NOWHERE: Final = -1
"""In place of a place."""


@mypyc_attr(acyclic=True)
class PackedMap:
    """As a dict, in the order in which the keys came; what it gives are copies."""

    __slots__ = ()

    def keys(self) -> list[Any]:
        """The keys."""
        raise NotImplementedError

    def values(self) -> list[Any]:
        """What they have."""
        raise NotImplementedError

    def items(self) -> list[tuple[Any, Any]]:
        """Both."""
        return list(zip(self.keys(), self.values(), strict=True))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __eq__(self, other: object) -> bool:
        known: Any = dict(other.items()) if isinstance(other, PackedMap) else other
        return bool(dict(self.items()) == known)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(dict(self.items()))


@mypyc_attr(acyclic=True)
class PairMap(PackedMap):
    """One whose entries are two numbers each, the second being what the key has.

    They stand in a part of an array: at first in the middle of all numbers of a row, which its other maps have parts
    of. A part is changed in place, and copied where it would grow.
    """

    __slots__ = ("_begin", "_end", "_flat")

    def __init__(self) -> None:
        self._flat: vec[i64] = vec[i64]()
        self._begin: i64 = 0
        self._end: i64 = 0

    def take(self, numbers: vec[i64], begin: i64, count: i64, base: i64) -> None:
        """Have the `count` entries that `give` put there, and be the only one to change them."""
        end: i64 = begin + 2 * count
        at: i64 = begin + 1
        if base:
            while at < end:
                numbers[at] += base
                at += 2
        self._flat, self._begin, self._end = numbers, begin, end

    def give(self, numbers: vec[i64], begin: i64, base: i64) -> i64:
        """Put the entries, numbers less `base`, into `numbers`; returns where they end."""
        flat = self._flat
        end: i64 = self._end
        at: i64 = self._begin
        while at < end:
            numbers[begin] = flat[at]
            numbers[begin + 1] = flat[at + 1] - base
            begin += 2
            at += 2
        return begin

    def size(self) -> i64:
        """How many entries there are."""
        return (self._end - self._begin) // 2

    def _add(self, first: i64, number: i64) -> None:
        """One more entry."""
        flat = self._flat
        length: i64 = self._end - self._begin
        if self._end + 2 <= len(flat):  # what follows is others': it makes room in the copy
            flat = flat[self._begin : self._end + 2]
            flat[length] = first
            flat[length + 1] = number
        else:
            if self._begin:
                flat = flat[self._begin : self._end]
            flat = append(append(flat, first), number)
        self._flat, self._begin, self._end = flat, 0, length + 2

    # -- as a dict

    def values(self) -> list[int]:
        """The numbers."""
        return list(self._flat)[self._begin + 1 : self._end : 2]

    def __len__(self) -> int:
        return self.size()

    def __bool__(self) -> bool:
        return self._end > self._begin
