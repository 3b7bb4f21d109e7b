"""What the engine does about rows that cannot be right: bytes that are no row, rows folded from another log.

How they are recognised is told in `app.stream.unreadable` and `app.stream.replays`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from faust.types import TP

from app.core.effects import Effects, Tally
from app.stream import replays
from app.stream.app import StreamApp
from app.stream.contracts import Observer
from app.stream.partition import Partition
from app.stream.table import RowTable
from app.stream.unreadable import BAD_ROW, letter_about
from schemas.dead_letters import cut, dead_letter_headers
from schemas.topics import DEAD_LETTERS

log = structlog.get_logger(__name__)


class Suspects:
    """The rows of one table, folded from the topic `source`."""

    def __init__(
        self, app: StreamApp, table: RowTable, source: str, observer: Observer, clock_ms: Callable[[], int]
    ) -> None:
        self._app = app
        self._table = table
        self._source = source
        self._observer = observer
        self._clock_ms = clock_ms

    async def bury(self, partition: int, unreadable: Mapping[bytes, bytes]) -> None:
        """Keep as dead letters what is no row, and return when they are acknowledged.

        The rows that take their place are written after that, so nothing is lost in between. Where the changelog may
        have something better, that is read first: the process ends.
        """
        table = self._table
        if partition not in table.rebuilt:
            table.doubt(partition)
            what = f"what {table.name}[{partition}] keeps of a user is no row"
            self._app.fatal(f"{what}; the next start rebuilds the store from {table.changelog}")
        store, now_ms = table.stores[partition], self._clock_ms()
        for key, raw in unreadable.items():
            letter = letter_about(raw, table.changelog, partition, store.next_offset, now_ms)
            headers = dead_letter_headers(letter, raw)
            kept = await self._app.durable_producer.enqueue(DEAD_LETTERS, cut(key), cut(raw), headers)
            place = await kept
            log.error(
                "row_unreadable",
                table=table.name,
                partition=partition,
                why=letter.detail,
                bytes=len(raw),
                letter=f"{place.partition}-{place.offset}",
                action="the user starts anew, without consent",
            )
            self._observer.effects(Effects(counts=Tally({("dead_letters", BAD_ROW): 1})), partition)

    async def look_up(self, partition: int, state: Partition, doubt: replays.Doubt) -> None:
        """Look whether the farthest row that passed events by has its last event where it says, or end."""
        offset, key = doubt
        end = self._app.batches.highwater(TP(self._source, partition))
        if end is not None and offset >= end:
            self._app.fatal(replays.another_log(self._source, partition, offset, f"and the log ends at {end}"))
        if state.looks:
            state.looks -= 1
            found = await self._app.key_at(self._source, partition, offset)
            if found not in (None, key):
                why = "where the log has somebody else's event"
                self._app.fatal(replays.another_log(self._source, partition, offset, why))
