"""Beside a worker's stream, on simulated topics: the fan-out of the catalog and the census for percentiles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from app.core.catalog import Catalog
from app.core.offers import item_triggers
from app.core.percentiles import Board, Tally, next_thresholds
from app.stream.census import Census
from app.stream.fanout import FanOut, Recent
from schemas.catalog import CatalogItem, decode_item
from schemas.percentiles import decode_percentiles
from schemas.topics import CATALOG, PERCENTILES

COUNT_S = 1.5
"""Between two counts of a partition."""
_POLL_S = 1.0


class Tail:
    """Reads a topic of one partition from its beginning and goes on, as `app.stream.broadcast` does."""

    def __init__(self, process: Any, topic: str, take: Callable[[Any], None]) -> None:
        self._process = process
        self._topic = topic
        self._rng = process.world.rng
        self._take = take
        self._position = 0

    def read(self) -> None:
        """Take in what is new."""
        log = self._process.cluster.log(self._topic, 0)
        while self._position < log.end and (entries := log.read(self._position, 500)):
            for entry in entries:
                self._position = entry.offset + 1
                self._take(entry)

    async def run(self) -> None:
        """For as long as the process lives."""
        while True:
            self.read()
            await asyncio.sleep(self._rng.random() * _POLL_S)


class Aside:
    """A process's catalog and thresholds, and the two jobs that keep rows up with them."""

    def __init__(self, process: Any, partitions: int) -> None:
        self.process = process
        core = process.processor
        core.catalog = Catalog()
        core.serve({})
        self.recent = Recent()
        self.board = Board()
        self.catalog = Tail(process, CATALOG, self._take_item)
        self.percentiles = Tail(process, PERCENTILES, self._take_count)
        clock_ms = process.faults.clock_ms
        triggers = item_triggers(core.plan)
        self.fanout = FanOut(process.engine, core, self.recent, lambda: triggers, clock_ms, share=1.0)
        self.census = Census(process.engine, core, self, clock_ms, partitions=partitions, interval_s=COUNT_S, share=1.0)

    async def follow(self) -> bool:
        """The census asks before each look; the topic is read from the start on."""
        return True

    def parts(self) -> list[Any]:
        """What runs; what the topics hold now has been read."""
        found: list[Any] = []
        if self.process.faults.sells:
            self.catalog.read()
            found += [self.catalog.run(), self.fanout._run()]
        if self.process.faults.counts:
            self.percentiles.read()
            found += [self.percentiles.run(), self.census._run()]
        return found

    def _take_item(self, entry: Any) -> None:
        item = decode_item(entry.value, entry.key)
        assert isinstance(item, CatalogItem)
        change = self.process.processor.catalog.take(item.id, item, entry.offset, self.process.faults.at_ms(entry))
        if change is not None:
            self.recent.add(change)

    def _take_count(self, entry: Any) -> None:
        if self.board.take(entry.key, decode_percentiles(entry.value)):
            self.process.processor.serve(self.board.buckets())

    # -- what the scenario asks

    def has_told(self, end: int) -> bool:
        """Whether all changes below an offset have been told to this process's users."""
        if not self.process.faults.sells:
            return True
        tenures = self.process.engine.tenures()
        states = [self.fanout._state(partition) for partition in tenures]
        return all(s is not None and s.is_built and min(s.wished_to, s.affine_to) >= end - 1 for s in states)

    def agrees(self, rows: dict[bytes, Any], now_ms: int) -> bool:
        """Whether the thresholds in force are those of the rows, and no row is astray."""
        if not self.process.faults.counts:
            return True
        core = self.process.processor
        tally = Tally(core.measured, core.policy_id)
        for key, row in rows.items():
            if not tally.put(row, now_ms, key.decode()) or core.astray(row, key.decode(), now_ms):
                return False
        for one in core.measured:
            record = self.board.thresholds().get(one.text)
            serving = {cut.name: cut for cut in record.cuts} if record is not None else {}
            if next_thresholds(one, tally.sketches[one.text], serving) is not None:
                return False
        return True
