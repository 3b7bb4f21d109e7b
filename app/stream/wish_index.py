"""Who wants an item, of one partition: found without reading rows.

The truth is in the rows; this index only says where to look, and may name too many: a row that has forgotten its wish
is asked and says nothing. So it only grows, until it is built anew from the store; four bytes a wish and about 150 a
user who has one.
"""

from __future__ import annotations

from array import array
from typing import Final

SLACK: Final = 10_000


class WishIndex:
    """Item to row keys. Pure."""

    def __init__(self) -> None:
        self._items: dict[int, array[int]] = {}
        self._numbers: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._entries = 0
        self._built = 0

    def add(self, item: int, key: bytes) -> None:
        """The row `key` wants `item`."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._keys)
            self._keys.append(key)
        entries = self._items.get(item)
        if entries is None:
            entries = self._items[item] = array("I")
        entries.append(number)
        self._entries += 1

    def keys(self, item: int) -> list[bytes]:
        """Every row that wants the item, each once, in the order in which they began to."""
        return [self._keys[number] for number in dict.fromkeys(self._items.get(item, ()))]

    def built(self) -> None:
        """All rows have been added: what comes from now on makes it older."""
        self._built = self._entries

    @property
    def worn(self) -> bool:
        """Whether so much was added since that it should be built anew."""
        return self._entries > 2 * self._built + SLACK

    def __len__(self) -> int:
        return self._entries
