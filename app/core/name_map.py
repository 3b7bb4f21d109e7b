"""Numbers by name, a few of them, packed: how much a user cares for each of some categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from librt.vecs import vec
from mypy_extensions import i64, mypyc_attr

from app.core.packed_map import NOWHERE, PairMap


@mypyc_attr(acyclic=True)
class NameMap(PairMap):
    """As a dict from name to number, in the order in which the names came.

    The names are one byte string, UTF-8, one after the other; they are looked through, as in `app.core.id_map`. An
    entry is how many bytes a name has, and its number.
    """

    __slots__ = ("_text",)

    def __init__(self) -> None:
        super().__init__()
        self._text = b""

    @staticmethod
    def of(numbers: Mapping[str, int]) -> NameMap:
        """One with these."""
        made = NameMap()
        for name, number in numbers.items():
            made[name] = number
        return made

    @staticmethod
    def taken(numbers: vec[i64], begin: i64, count: i64, text: bytes) -> NameMap:
        """One with the `count` entries that `give` put into `numbers`, which it may change, and its text.

        Raises `msgspec.DecodeError` for something else, `UnicodeDecodeError` where that is no text.
        """
        made = NameMap()
        made.take(numbers, begin, count, 0)
        length: i64 = 0
        at: i64 = begin
        while at < begin + 2 * count:
            if numbers[at] < 0:
                raise msgspec.DecodeError("a name is shorter than nothing")
            length += numbers[at]
            at += 2
        if length != len(text):
            raise msgspec.DecodeError("names are not as long as they say")
        if not text.isascii():
            text.decode()
        made._text = text
        return made

    def text(self) -> bytes:
        """The names."""
        return self._text

    # -- by places, for the hot path

    def find(self, name: bytes) -> i64:
        """The place of a name's number, `NOWHERE` if it has none."""
        flat, text = self._flat, self._text
        end: i64 = self._end
        wanted: i64 = len(name)
        begin: i64 = 0
        at: i64 = self._begin
        while at < end:
            length = flat[at]
            if length == wanted:
                same: i64 = 0
                while same < length and text[begin + same] == name[same]:
                    same += 1
                if same == length:
                    return at + 1
            begin += length
            at += 2
        return NOWHERE

    def at(self, place: i64) -> i64:
        """The number there."""
        return self._flat[place]

    def set_at(self, place: i64, number: i64) -> None:
        """Another number."""
        self._flat[place] = number

    def add(self, name: bytes, number: i64) -> None:
        """A name that is not there yet."""
        self._text += name
        self._add(len(name), number)

    def forget_least(self) -> None:
        """Drop the name with the least number, the first of several."""
        least = min(self.items(), key=lambda entry: entry[1])[0]
        del self[least]

    # -- as a dict

    def get(self, name: str, default: Any = None) -> Any:
        """The name's number, or `default`."""
        place = self.find(name.encode())
        return default if place == NOWHERE else self._flat[place]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name.encode()) != NOWHERE

    def __getitem__(self, name: str) -> int:
        place = self.find(name.encode())
        if place == NOWHERE:
            raise KeyError(name)
        return self._flat[place]

    def __setitem__(self, name: str, number: int) -> None:
        raw = name.encode()
        place = self.find(raw)
        if place == NOWHERE:
            self.add(raw, number)
        else:
            self._flat[place] = number

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        kept = [entry for entry in self.items() if entry[0] != name]
        self._flat, self._text = vec[i64](), b""
        self._begin = self._end = 0
        for key, number in kept:
            self.add(key.encode(), number)

    def keys(self) -> list[str]:
        """The names."""
        found: list[str] = []
        begin: i64 = 0
        at: i64 = self._begin
        while at < self._end:
            end: i64 = begin + self._flat[at]
            found.append(self._text[begin:end].decode())
            begin = end
            at += 2
        return found

    def __reduce__(self) -> tuple[Callable[..., NameMap], tuple[dict[str, int]]]:
        return NameMap.of, (dict(self.items()),)
