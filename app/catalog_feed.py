"""Keeps a worker's catalog at what the topic says, for as long as its policy has a use for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from app.core.campaign import ItemTrigger
from app.core.catalog import Catalog
from app.core.offers import item_triggers
from app.core.processor import Processor
from app.metrics import Metrics
from app.stream.background import end
from app.stream.broadcast import BroadcastReader
from app.stream.fanout import Recent
from schemas.catalog import decode_item
from schemas.events import Rejected
from schemas.topics import CATALOG

log = structlog.get_logger(__name__)


class _Reader(BroadcastReader):
    """Calls `take` with the whole record: a change is as old as its record."""

    def __init__(self, settings: Mapping[str, Any], take: Callable[[Any], None]) -> None:
        super().__init__(settings, CATALOG, lambda key, value, offset: None)
        self.take = take

    def _take(self, record: Any) -> None:
        self.take(record)


class CatalogFeed:
    """Reads the topic into the processor's catalog, and changes into `recent`.

    Nothing is read, or kept, as long as the policy in force has no trigger on the catalog.

    Parameters
    ----------
    at_ms
        Wall time to event time.
    """

    def __init__(
        self,
        processor: Processor,
        settings: Mapping[str, Any],
        metrics: Metrics,
        at_ms: Callable[[int], int],
        *,
        items_max: int,
    ) -> None:
        self._processor = processor
        self._settings = settings
        self._metrics = metrics
        self._at_ms = at_ms
        self._items_max = items_max
        self._reader: _Reader | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = False
        self.recent = Recent()

    def triggers(self) -> tuple[ItemTrigger, ...]:
        """Those of the policy in force, once the topic has been read."""
        return item_triggers(self._processor.plan) if self._reader is not None and self._reader.as_of else ()

    async def start(self) -> None:
        """Read the topic to its end, if the policy has a use for it. Raises `TimeoutError`."""
        self._started = True
        if item_triggers(self._processor.plan) and self._reader is None:
            self._processor.catalog = Catalog(self._items_max)
            self._reader = _Reader(self._settings, self.take)
            await self._reader.start()

    def follow(self) -> None:
        """Another policy is in force: begin to read if it needs the catalog."""
        if self._started and self._reader is None and item_triggers(self._processor.plan):
            self._task = asyncio.create_task(self._begin(), name="catalog")

    async def _begin(self) -> None:
        try:
            await self.start()
        except TimeoutError as exc:
            log.warning("catalog_is_slow", error=str(exc))  # it goes on reading; until then nobody is told

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end(self._task)
        if self._reader is not None:
            await self._reader.stop()

    def take(self, record: Any) -> None:
        """One record. One that is no item is passed by: the owner of the topic's partition writes the dead letter."""
        catalog = self._processor.catalog
        item = None if record.value is None else decode_item(record.value, record.key)
        if record.key is None or isinstance(item, Rejected):
            return
        at_ms = self._at_ms(record.timestamp)
        change = catalog.take(record.key.decode(errors="replace"), item, record.offset, at_ms)
        if change is not None:
            for kind, happened in (("price_drop", change.dropped), ("back_in_stock", change.restocked)):
                if happened:
                    self._metrics.catalog_changes.labels(kind).inc()
            self.recent.add(change)
        self._metrics.catalog_items.set(len(catalog.items))
        self._metrics.catalog_unknown.set(catalog.unknown)
