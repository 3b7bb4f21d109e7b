"""What everybody bought, as the learner publishes it and `app.core.recommend` reads it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.core.browsing import Item

BESIDE: Final = struct.Struct("<He")
"""A product beside another: its place in `ItemTable.items`, and its weight."""


@dataclass(frozen=True, slots=True)
class ItemTable:
    """What everybody bought: a bounded snapshot. Version 0 knows nothing.

    Parameters
    ----------
    top
        The best sellers of all categories, best first.
    popular
        By category, its best sellers.
    items
        Products that `near` speaks of, by place.
    near
        By the stable id of a product, what is bought with it and its weight (above 0), best first: `BESIDE` after
        `BESIDE`. Packed, as a worker reads the whole table every few seconds and a little of it now and then.
    by_segment
        By a segment's name, the best sellers among its users.
    usual, thin
        Weights, by place, of what everybody buys; and by the stable id of a product how much they count beside those in
        `near`, in (0, 1]: the more, the less is known of the product.
    """

    version: int = 0
    top: tuple[Item, ...] = ()
    popular: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    items: tuple[Item, ...] = ()
    near: Mapping[int, bytes] = field(default_factory=dict)
    by_segment: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    usual: tuple[tuple[int, float], ...] = ()
    thin: Mapping[int, float] = field(default_factory=dict)

    def beside(self, seed: int) -> Iterator[tuple[int, float]]:
        """What is bought with a product, by place, and its weight.

        Examples
        --------
        >>> table = ItemTable(items=(Item("tea"), Item("milk")), near={7: BESIDE.pack(1, 0.5)})
        >>> [(table.items[place].id, weight) for place, weight in table.beside(7)], list(table.beside(8))
        ([('milk', 0.5)], [])
        """
        return BESIDE.iter_unpack(self.near.get(seed, b""))


NO_ITEMS: Final = ItemTable()
