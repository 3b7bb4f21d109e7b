"""Numbers by stable id, a few of them, packed: when a user last did something, or entered a segment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from librt.strings import BytesWriter
from librt.vecs import vec
from mypy_extensions import i64, mypyc_attr, u8

from app.core.longs import write_ids
from app.core.packed_map import NOWHERE, PairMap


@mypyc_attr(acyclic=True)
class IdMap(PairMap):
    """As a dict from id to number, in the order in which the ids came.

    A row has a handful of them, so they are looked through; nothing is hashed, and nothing is boxed.
    """

    __slots__ = ()

    @staticmethod
    def of(numbers: Mapping[int, int]) -> IdMap:
        """One with these."""
        made = IdMap()
        for key, number in numbers.items():
            made.put(key, number)
        return made

    @staticmethod
    def taken(numbers: vec[i64], begin: i64, count: i64, base: i64) -> IdMap:
        """One with the `count` entries that `give` put into `numbers`, which it may change."""
        made = IdMap()
        made.take(numbers, begin, count, base)
        return made

    def _at(self, key: i64) -> i64:
        """Where the id's number is, `NOWHERE` if it has none."""
        flat = self._flat
        end: i64 = self._end
        at: i64 = self._begin
        while at < end:
            if flat[at] == key:
                return at + 1
            at += 2
        return NOWHERE

    def has(self, key: i64) -> bool:
        """Whether the id has a number."""
        return self._at(key) != NOWHERE

    def number(self, key: i64, absent: i64) -> i64:
        """The id's number, `absent` if it has none."""
        at = self._at(key)
        return absent if at == NOWHERE else self._flat[at]

    def put(self, key: i64, number: i64) -> None:
        """Set the id's number."""
        at = self._at(key)
        if at != NOWHERE:
            self._flat[at] = number
        else:
            self._add(key, number)

    def remove(self, key: i64) -> None:
        """Forget the id. Raises `KeyError` when it has no number."""
        at = self._at(key)
        if at == NOWHERE:
            raise KeyError(key)
        flat = self._flat
        end: i64 = self._end
        while at + 2 < end:
            flat[at - 1] = flat[at + 1]
            flat[at] = flat[at + 2]
            at += 2
        self._end = end - 2

    def write_ids(self, writer: BytesWriter, most: i64) -> None:
        """Their number, a byte, and the first ids, four bytes each."""
        count: i64 = min(self.size(), most)
        writer.append(u8(count))
        write_ids(self._flat, self._begin, self._begin + 2 * count, writer)

    # -- as a dict

    def get(self, key: int, default: Any = None) -> Any:
        """The id's number, or `default`."""
        at = self._at(key)
        return default if at == NOWHERE else self._flat[at]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self._at(key) != NOWHERE

    def __getitem__(self, key: int) -> int:
        at = self._at(key)
        if at == NOWHERE:
            raise KeyError(key)
        return self._flat[at]

    def __setitem__(self, key: int, number: int) -> None:
        self.put(key, number)

    def __delitem__(self, key: int) -> None:
        self.remove(key)

    def keys(self) -> list[int]:
        """The ids."""
        return list(self._flat)[self._begin : self._end : 2]

    def __reduce__(self) -> tuple[Callable[..., IdMap], tuple[dict[int, int]]]:
        return IdMap.of, (dict(self.items()),)
