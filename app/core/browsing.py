"""Products in a row: those viewed lately and those bought. Folded by `app.core.items`, read by `app.core.recommend`."""

from __future__ import annotations

import msgspec


class Item(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A product: the producers' id for it, and what it is called; category and name may be empty."""

    id: str
    category: str = ""
    name: str = ""


class Viewed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A product that was looked at, and when."""

    at_ms: int
    item: Item


class Browsing(msgspec.Struct, array_like=True, gc=False):
    """Of one user, in rows of a policy that recommends products.

    Parameters
    ----------
    viewed
        Newest last, each product once, bounded.
    bought
        Stable id of the product to its newest purchase (event time, ms), bounded. Two products of one id would be
        taken for one: a recommendation less, never one too many.
    day, baskets
        How many orders went to the learner on that day (days since 1970).
    """

    viewed: list[Viewed] = []
    bought: dict[int, int] = {}
    day: int = 0
    baskets: int = 0
