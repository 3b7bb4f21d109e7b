"""Products in a row: those viewed lately, bought, and wanted.

Folded by `app.core.items` and `app.core.wishes`; read by `app.core.recommend` and `app.core.offers`.
"""

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


class Wish(msgspec.Struct, array_like=True, gc=False):
    """An item of the catalog that the user showed interest in.

    Parameters
    ----------
    at_ms
        Newest interest.
    kinds
        What they did with it, as bits of `app.core.wishes.KINDS`.
    price_milli
        What it cost when they last saw it, or were told; 0 when that is not known.
    told
        The newest version of the item (offset in `catalog`) that was offered to the user.
    """

    at_ms: int
    kinds: int
    price_milli: int = 0
    told: int = -1


class Browsing(msgspec.Struct, array_like=True, gc=False):
    """Of one user, in rows of a policy that recommends products or speaks of changes of the catalog.

    Parameters
    ----------
    viewed
        Newest last, each product once, bounded.
    bought
        Stable id of the product to its newest purchase (event time, ms), bounded. Two products of one id would be
        taken for one: a recommendation less, never one too many.
    day, baskets
        How many orders went to the learner on that day (days since 1970).
    wishes
        By `app.core.catalog.item_hash`, bounded.
    told_affine
        Offers that follow from the user's interest in a category have been made up to this version of the catalog.
    """

    viewed: list[Viewed] = []
    bought: dict[int, int] = {}
    day: int = 0
    baskets: int = 0
    wishes: dict[int, Wish] = {}
    told_affine: int = -1
