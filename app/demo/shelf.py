"""The demo's catalog: products of the study at the prices that were paid, and what happens to them on the shelf.

Names, departments and prices are real. When something is marked down or sold out is simulated: the study says what each
basket cost, not what the shop had. All of it is drawn from hashes of the seed and ids, like the audience.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from app.clock import Clock
from app.demo.audience import DAY_MS, HOUR_MS, dice
from app.demo.feed import EventFeed
from app.demo.journey import Journey, Line
from schemas.catalog import CatalogItem, encode_item

ITEMS_MAX: Final = 300
"""The products bought most often: those that people meet again."""
DROPS_PER_DAY: Final = 0.05
SOLD_OUT_PER_DAY: Final = 0.03
"""Of a product."""
DROP_SHARES: Final = (0.15, 0.4)
_TICK_S: Final = 0.1


class Change(NamedTuple):
    """What an item is from `at_ms` on."""

    at_ms: int
    item: CatalogItem


@dataclass(frozen=True, slots=True)
class Shelf:
    """Every item as it is at the beginning, and its changes in order of time."""

    first: tuple[CatalogItem, ...] = ()
    changes: tuple[Change, ...] = ()
    _gone: dict[str, list[int]] = field(default_factory=dict)
    """By item, the instants at which it goes and comes back, in turn."""

    def sold_out(self, product_id: str, at_ms: int) -> bool:
        """Whether the item is not to be had then."""
        return bisect_right(self._gone.get(product_id, ()), at_ms) % 2 == 1

    def __contains__(self, product_id: str) -> bool:
        return product_id in self._gone


def stock(journey: Journey, seed: int) -> Shelf:
    """The catalog of a journey. The same arguments give the same one."""
    lines: dict[str, Line] = {}
    bought: Counter[str] = Counter()
    for basket in journey.baskets:
        for line in basket.lines:
            if line.price > 0:
                lines[line.product_id] = line
                bought[line.product_id] += 1
    first, changes, gone = [], [], {}
    for product_id, _ in sorted(bought.items(), key=lambda one: (-one[1], one[0]))[:ITEMS_MAX]:
        line = lines[product_id]
        item = CatalogItem(
            id=product_id, name=line.name, category=line.department, price=line.price, currency="USD", stock=20
        )
        first.append(item)
        life = list(_life(item, journey, seed))
        changes += life
        gone[product_id] = [
            later.at_ms
            for earlier, later in zip([Change(0, item), *life], life, strict=False)
            if earlier.item.in_stock != later.item.in_stock
        ]
    return Shelf(tuple(first), tuple(sorted(changes, key=lambda change: (change.at_ms, change.item.id))), gone)


def _life(item: CatalogItem, journey: Journey, seed: int) -> Iterator[Change]:
    """Times marked down and times sold out, one after the other."""
    rng = dice(seed, "shelf", item.id)
    at_ms = journey.start_ms
    while True:
        at_ms += int(rng.expovariate(DROPS_PER_DAY + SOLD_OUT_PER_DAY) * DAY_MS)
        if rng.random() < DROPS_PER_DAY / (DROPS_PER_DAY + SOLD_OUT_PER_DAY):
            price = round((item.price or 0.0) * (1.0 - rng.uniform(*DROP_SHARES)), 2)
            changed, lasts_ms = msgspec.structs.replace(item, price=price), rng.randrange(24, 96) * HOUR_MS
        else:
            changed, lasts_ms = msgspec.structs.replace(item, stock=0), rng.randrange(12, 48) * HOUR_MS
        if at_ms >= journey.end_ms:
            return
        yield Change(at_ms, changed)
        at_ms += lasts_ms
        if at_ms >= journey.end_ms:
            return
        yield Change(at_ms, item)


async def fill(shelf: Shelf, feed: EventFeed) -> None:
    """Put everything on the topic `catalog`, as it is at the beginning."""
    for item in shelf.first:
        feed.add(item.id.encode(), encode_item(item))
    await feed.flush()


async def play(shelf: Shelf, clock: Clock, feed: EventFeed) -> None:
    """Put each change there when its time has come."""
    for change in shelf.changes:
        while clock.now_ms() < change.at_ms:
            await feed.send()
            await asyncio.sleep(_TICK_S)
        feed.add(change.item.id.encode(), encode_item(change.item))
    await feed.flush()
