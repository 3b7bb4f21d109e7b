"""Forgets ledger entries past their retention while the sender runs: a restore sweeps too, but may not come for months.

It goes round slowly, so that it costs next to nothing; a round of n rows takes n / 2,000 seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from app.stream.background import Background
from tables.ledger import RETENTION_MS, sweep

log = structlog.get_logger(__name__)

PAGE_ROWS: Final = 1_000
PAUSE_S: Final = 0.5

Row = tuple[bytes, bytes | None]


class Ledger(Protocol):
    """What is used of the ledger's row table."""

    def partitions(self) -> Sequence[int]:
        """Those that are ours and restored now."""
        ...

    def page(self, partition: int, after: bytes, limit: int) -> list[bytes]:
        """Keys in order, of rows that have reached the store."""
        ...

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """The newest values, whether they have reached the store or not."""
        ...

    async def write(self, partition: int, rows: list[Row]) -> None:
        """All or nothing; returns when it is durable."""
        ...


class Sweeper(Background):
    """Walks over the ledger, partition by partition, page by page, for ever.

    Parameters
    ----------
    failed
        Called when a deletion could not be made durable: nothing is lost, but the disk or the broker refuses writes.
    """

    task_name = "sweeper"

    def __init__(
        self,
        ledger: Ledger,
        wall_ms: Callable[[], int],
        failed: Callable[[str, BaseException], object],
        *,
        retention_ms: int = RETENTION_MS,
        page_rows: int = PAGE_ROWS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._wall_ms = wall_ms
        self._failed = failed
        self._retention_ms = retention_ms
        self._page_rows = page_rows
        self._sleep = sleep
        self._partition = -1
        self._cursor = b""

    async def _run(self) -> None:
        while True:
            await self._sleep(PAUSE_S)
            try:
                await self.step()
            except Exception as exc:
                self._failed("sweeping the ledger failed", exc)

    async def step(self) -> int:
        """Look at one page; returns how many rows were forgotten."""
        partitions = sorted(self._ledger.partitions())
        if not partitions:
            return 0
        if self._partition not in partitions:  # the first step, or it was given up
            self._go_to(partitions, self._partition)
        partition = self._partition
        keys = self._ledger.page(partition, self._cursor, self._page_rows)
        if len(keys) < self._page_rows:
            self._go_to(partitions, partition)
        else:
            self._cursor = keys[-1]
        # Not the page's own values: a newer one may be on its way to the store.
        values = self._ledger.get_many(partition, keys)
        rows = [(key, value) for key, value in zip(keys, values, strict=True) if value is not None]
        tombstones: list[Row] = list(sweep(rows, self._wall_ms(), self._retention_ms))
        if tombstones:
            await self._ledger.write(partition, tombstones)
            log.info("ledger_swept", partition=partition, rows=len(tombstones))
        return len(tombstones)

    def _go_to(self, partitions: Sequence[int], after: int) -> None:
        """To the beginning of the next partition, in turn."""
        self._partition = next((one for one in partitions if one > after), partitions[0])
        self._cursor = b""
