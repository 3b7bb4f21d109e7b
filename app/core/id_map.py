"""Numbers by stable id, a few of them, packed: when a user last did something, or entered a segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from librt.strings import BytesWriter
from librt.vecs import append, pop, vec
from mypy_extensions import i64, mypyc_attr, u8

from app.core.longs import write_ids

_NOWHERE: Final = -1


@mypyc_attr(acyclic=True)
class IdMap:
    """As a dict from id to number, in the order in which the ids came.

    A row has a handful of them, so they are looked through; nothing is hashed, and nothing is boxed.
    """

    __slots__ = ("_flat",)

    def __init__(self) -> None:
        self._flat: vec[i64] = vec[i64]()
        """An id and its number, and the next."""

    @staticmethod
    def of(numbers: Mapping[int, int]) -> IdMap:
        """One with these."""
        made = IdMap()
        for key, number in numbers.items():
            made.put(key, number)
        return made

    @staticmethod
    def taken(numbers: vec[i64], begin: i64, count: i64, base: i64) -> IdMap:
        """One with the `count` entries that `give` put into `numbers`."""
        made = IdMap()
        flat = numbers[begin : begin + 2 * count]
        at: i64 = 1
        while at < 2 * count:
            flat[at] += base
            at += 2
        made._flat = flat
        return made

    def size(self) -> i64:
        """How many ids there are."""
        return len(self._flat) // 2

    def give(self, numbers: vec[i64], begin: i64, base: i64) -> i64:
        """Put ids and numbers, these less `base`, into `numbers`; returns where they end."""
        flat = self._flat
        end: i64 = len(flat)
        at: i64 = 0
        while at < end:
            numbers[begin + at] = flat[at]
            numbers[begin + at + 1] = flat[at + 1] - base
            at += 2
        return begin + end

    def _at(self, key: i64) -> i64:
        """Where the id's number is, `_NOWHERE` if it has none."""
        flat = self._flat
        end: i64 = len(flat)
        at: i64 = 0
        while at < end:
            if flat[at] == key:
                return at + 1
            at += 2
        return _NOWHERE

    def has(self, key: i64) -> bool:
        """Whether the id has a number."""
        return self._at(key) != _NOWHERE

    def number(self, key: i64, absent: i64) -> i64:
        """The id's number, `absent` if it has none."""
        at = self._at(key)
        return absent if at == _NOWHERE else self._flat[at]

    def put(self, key: i64, number: i64) -> None:
        """Set the id's number."""
        at = self._at(key)
        if at != _NOWHERE:
            self._flat[at] = number
        else:
            self._flat = append(append(self._flat, key), number)

    def remove(self, key: i64) -> None:
        """Forget the id. Raises `KeyError` when it has no number."""
        at = self._at(key)
        if at == _NOWHERE:
            raise KeyError(key)
        flat = self._flat
        end: i64 = len(flat)
        while at + 2 < end:
            flat[at - 1] = flat[at + 1]
            flat[at] = flat[at + 2]
            at += 2
        self._flat = pop(pop(flat)[0])[0]

    def write_ids(self, writer: BytesWriter, most: i64) -> None:
        """Their number, a byte, and the first ids, four bytes each."""
        count: i64 = min(self.size(), most)
        writer.append(u8(count))
        write_ids(self._flat, 2 * count, writer)

    # -- as a dict

    def get(self, key: int, default: Any = None) -> Any:
        """The id's number, or `default`."""
        at = self._at(key)
        return default if at == _NOWHERE else self._flat[at]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self._at(key) != _NOWHERE

    def __getitem__(self, key: int) -> int:
        at = self._at(key)
        if at == _NOWHERE:
            raise KeyError(key)
        return self._flat[at]

    def __setitem__(self, key: int, number: int) -> None:
        self.put(key, number)

    def __delitem__(self, key: int) -> None:
        self.remove(key)

    def __len__(self) -> int:
        return self.size()

    def __bool__(self) -> bool:
        return len(self._flat) > 0

    def __iter__(self) -> Iterator[int]:
        return iter(self.keys())

    def keys(self) -> list[int]:
        """The ids."""
        return list(self._flat)[::2]

    def values(self) -> list[int]:
        """The numbers."""
        return list(self._flat)[1::2]

    def items(self) -> list[tuple[int, int]]:
        """Ids with their numbers."""
        return list(zip(self.keys(), self.values(), strict=True))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, IdMap):
            return dict(self.items()) == dict(other.items())
        return dict(self.items()) == other

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Callable[..., IdMap], tuple[dict[int, int]]]:
        return IdMap.of, (dict(self.items()),)

    def __repr__(self) -> str:
        return repr(dict(self.items()))
