"""Catalog records checked: of all workers the one that owns the partition says what is wrong with which.

What the items are every worker reads for itself (`app.catalog_feed`); a record that is no item they pass by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.stream.app import StreamApp
from app.stream.batch import RecordBatch
from app.stream.refused import bury
from schemas.catalog import decode_item
from schemas.events import Rejected
from schemas.topics import CATALOG


class CatalogCheck:
    """Dead-letters the records that are no items; a batch is complete when its dead letters are acknowledged."""

    def __init__(self, app: StreamApp, refused: Callable[[str], None], clock_ms: Callable[[], int]) -> None:
        self._app = app
        self._refused = refused
        self._clock_ms = clock_ms

    def assigned(self, partitions: set[int]) -> None:
        """There is nothing to keep of a partition."""

    async def before_resume(self, offsets: Mapping[int, int]) -> None:
        """There is nothing to prepare."""

    async def drain(self) -> None:
        """Every batch waits for acknowledgements only."""

    async def submit(self, batch: RecordBatch) -> None:
        """Check a batch."""
        if not batch.begin():
            return
        for record in batch.records:
            if record.value is None:
                continue
            found = decode_item(record.value, record.key)
            if isinstance(found, Rejected):
                self._refused(found.reason)
                await bury(self._app.durable_producer, CATALOG, batch.partition, record, found, self._clock_ms())
        batch.complete()


def attach(app: StreamApp, check: CatalogCheck) -> Any:
    """Attach the agent that feeds `check`."""

    @app.agent(app.batched_topic(CATALOG), name="catalog", concurrency=1)
    async def catalog(fetches: Any) -> None:
        async for batches in fetches:
            try:
                for batch in batches:
                    await check.submit(batch)
            except Exception as exc:
                app.fatal(f"checking {batches!r} failed", exc)

    return catalog
