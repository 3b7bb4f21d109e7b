"""What there is to buy, as this worker has read it, and what has changed about it.

Bounded: of more than `items_max` items the rest are unknown (and counted); nobody is told of their changes. A change is
between two records of one item, and its version is the offset of the second: every worker that reads them finds the
same, as long as the topic keeps both (`schemas.topics`: a day).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.core.browsing import Browsing, purchases_of
from app.core.ids import message_hash, stable_id
from schemas.catalog import CatalogItem

ITEMS_MAX: Final = 100_000
"""Of some 700 bytes each."""


class Change(msgspec.Struct, frozen=True):
    """An item that became cheaper, or can be bought again.

    Parameters
    ----------
    offset
        Of the record that says so: the item's version.
    at_ms
        When, in event time.
    """

    item: CatalogItem
    before: CatalogItem
    offset: int
    at_ms: int
    dropped: bool
    restocked: bool
    id: int


class Catalog:
    """Items by id. Changed only by `take`."""

    def __init__(self, items_max: int = ITEMS_MAX) -> None:
        self.items: dict[str, CatalogItem] = {}
        self.unknown = 0
        """Records of items for which there was no room."""
        self._items_max = items_max

    def get(self, item_id: str) -> CatalogItem | None:
        """The item as it is now."""
        return self.items.get(item_id)

    def take(self, item_id: str, item: CatalogItem | None, offset: int, at_ms: int) -> Change | None:
        """Take in a record, None for one that takes the item away; returns the change if somebody may want to know."""
        before = self.items.get(item_id)
        if item is None:
            self.items.pop(item_id, None)
            return None
        if before is None and len(self.items) >= self._items_max:
            self.unknown += 1
            return None
        self.items[item_id] = item
        if before is None or not item.in_stock:
            return None
        restocked = not before.in_stock
        dropped = _is_cheaper(before, item)
        if not (dropped or restocked):
            return None
        return Change(item, before, offset, at_ms, dropped, restocked, item_hash(item_id))


def _is_cheaper(before: CatalogItem, item: CatalogItem) -> bool:
    if before.price is None or item.price is None or before.currency != item.currency:
        return False
    return item.price < before.price


NO_CATALOG: Final = Catalog(0)


def item_hash(item_id: str) -> int:
    """The id under which rows and indexes keep an item: 63 bits, so that no two are taken for one."""
    return message_hash(item_id)


def facts(item: CatalogItem, price_before: float | None) -> dict[str, Any]:
    """An item as templates and conditions read it: flat, so that a candidate that waits keeps all of it."""
    told: dict[str, Any] = {
        "id": item.id,
        "name": item.name,
        "category": item.category,
        "currency": item.currency,
        "url": item.url,
        "image": item.image,
    }
    if item.price is not None:
        told["price"] = _shown(item.price)
        if price_before is not None and price_before > item.price:
            told["price_before"] = _shown(price_before)
            told["drop_percent"] = int(100 * (1 - item.price / price_before) + 1e-9)
    if item.stock is not None:
        told["stock"] = item.stock
    return told


def _shown(price: float) -> float:
    """A whole amount without its decimals."""
    return int(price) if price == int(price) else price


FACTS: Final = frozenset(
    {"id", "name", "category", "currency", "url", "image", "price", "price_before", "drop_percent", "stock"}
)
"""The names that `facts` may give."""


def still_holds(catalog: Catalog, browsing: Browsing | None, told: Mapping[str, Any]) -> bool:
    """Whether what a waiting candidate says of an item is still so, and the user has not bought it meanwhile."""
    item = catalog.get(str(told.get("id", "")))
    if item is None or not item.in_stock or has_bought(browsing, item.id):
        return False
    price = told.get("price")
    return price is None or (item.price is not None and item.price <= price)


def has_bought(browsing: Browsing | None, item_id: str) -> bool:
    """Whether the row knows that the user bought the item."""
    return browsing is not None and stable_id(item_id) in purchases_of(browsing)
