"""What the demo's shop has on its shelves: the products of the journey, of which some become cheaper each day.

The study has prices as they were paid; its price changes are ours, as a study of coupons would hardly show them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Final

from app.clock import Clock
from app.demo.feed import EventFeed
from app.demo.journey import Journey, Line
from schemas.catalog import CatalogItem, encode_item

PRODUCTS_MAX: Final = 2_000
"""Those bought most."""
DROPS: Final = 10
"""Products that become cheaper at a time, and dearer again the next."""
EVERY_MS: Final = 24 * 3_600_000
_LOOK_S: Final = 0.25


class Shelf:
    """Produces the catalog, and its changes by the clock."""

    def __init__(self, journey: Journey, clock: Clock, feed: EventFeed, seed: int) -> None:
        lines = [line for basket in journey.baskets for line in basket.lines]
        known: dict[str, Line] = {line.product_id: line for line in lines if line.price > 0}
        most = Counter(line.product_id for line in lines if line.product_id in known).most_common(PRODUCTS_MAX)
        self._items = [known[product] for product, _count in most]
        self._clock = clock
        self._feed = feed
        self._dice = Random(seed)  # noqa: S311
        self._cheap: list[Line] = []
        self._next_ms = journey.start_ms + EVERY_MS

    async def keep(self) -> None:
        """Fill the shelves, and change prices until cancelled."""
        for line in self._items:
            self._put(line, line.price)
        await self._feed.flush()
        while True:
            if self._clock.now_ms() >= self._next_ms and self._items:
                self._next_ms += EVERY_MS
                self._change()
                await self._feed.flush()
            await asyncio.sleep(_LOOK_S)

    def _change(self) -> None:
        for line in self._cheap:
            self._put(line, line.price)
        self._cheap = self._dice.sample(self._items, min(DROPS, len(self._items)))
        for line in self._cheap:
            self._put(line, round(line.price * self._dice.uniform(0.6, 0.8), 2))

    def _put(self, line: Line, price: float) -> None:
        item = CatalogItem(id=line.product_id, category=line.department[:64], price=price, currency="USD")
        self._feed.add(line.product_id.encode(), encode_item(item))
