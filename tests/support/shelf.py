"""A stream with a catalog beside it: records change items, and each change is offered to whoever may want it."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.core.catalog import Catalog, Change
from app.core.effects import Effects
from app.core.offers import Offer
from schemas.catalog import CatalogItem
from tests.support.streams import Stream


@dataclass
class Shelf(Stream):
    """`put` sets an item; `offer` offers what has changed to every row, as the fan-out would."""

    catalog: Catalog = field(default_factory=Catalog)
    changed: list[Change] = field(default_factory=list)
    version: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.processor.catalog = self.catalog

    def put(self, item_id: str, *, price: float | None = None, stock: int | None = None, category: str = "") -> None:
        """A record of the catalog at the present time."""
        item = CatalogItem(id=item_id, name=f"Item {item_id}", price=price, stock=stock, category=category)
        change = self.catalog.take(item_id, item, self.version, self.now_ms)
        self.version += 1
        if change is not None:
            self.changed.append(change)

    def offer(self, *, affine: bool = False) -> Effects:
        """Offer every change there was to every row, again and again: who was told is not told twice."""
        changes = tuple(self.changed)
        end = changes[-1].offset if changes and affine else -1
        offer = Offer(changes, changes if affine else (), end)
        effects = self.processor.offer(
            dict.fromkeys(self.rows, offer), self.rows, now_ms=self.now_ms, mark=len(self.log), acked_offset=0
        )
        return self._settle(effects)
