"""The catalog in a trial: changes told to whom they concern as `app.stream.fanout` does, by the recording's clock.

The worker tells changes in rounds, as it finds them; here those within a second are a round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from app.core.catalog import Catalog, Change
from app.core.effects import Effects
from app.core.offers import Offer, Round, for_wishes, item_triggers, likes_categories
from app.core.panes import NEVER_MS
from app.core.processor import Processor
from app.core.profile import Profile
from app.stream.wish_index import WishIndex
from app.trial.acknowledged import ACKNOWLEDGED
from app.trial.records import Recorded
from schemas.catalog import decode_item
from schemas.events import Rejected

ROUND_MS: Final = 1000


class Shelf:
    """What there is to buy, and who wants it; `next_ms` is when changes are told next.

    A policy without triggers on the catalog has none, as in a worker.
    """

    def __init__(self, processor: Processor, rows: dict[bytes, Profile], items_max: int) -> None:
        self._processor = processor
        self._rows = rows
        self._index = WishIndex()
        self._waiting: list[Change] = []
        triggers = item_triggers(processor.plan)
        self._likes = likes_categories(triggers)
        self.wanted = bool(triggers)
        self.changes = 0
        """How many changes were told."""
        self.next_ms = NEVER_MS
        if self.wanted:
            processor.catalog = Catalog(items_max)

    def wished(self, wishes: Iterable[tuple[int, bytes]]) -> None:
        """Rows want items that they did not want before."""
        for item, key in wishes:
            self._index.add(item, key)

    def take(self, record: Recorded, now_ms: int) -> None:
        """A record of the catalog. One that is no item is passed by, as in a worker."""
        item = None if record.value is None else decode_item(record.value, record.key)
        if not self.wanted or record.key is None or isinstance(item, Rejected):
            return
        change = self._processor.catalog.take(record.key.decode(errors="replace"), item, record.offset, now_ms)
        if change is not None:
            self._waiting.append(change)
            self.next_ms = min(self.next_ms, now_ms + ROUND_MS)

    def run(self, now_ms: int) -> Iterator[Effects]:
        """Tell what has changed: those who want the items first, then those who like their categories."""
        changes, self._waiting, self.next_ms = self._waiting, [], NEVER_MS
        self.changes += len(changes)
        yield self._offer(for_wishes(changes, self._index.keys), now_ms)
        offered = Round(changes)
        if self._likes and offered:
            liked = {key: offer for key, row in self._rows.items() if (offer := offered.of(row)) is not None}
            yield self._offer(liked, now_ms)

    def _offer(self, offers: dict[bytes, Offer], now_ms: int) -> Effects:
        return self._processor.offer(offers, self._rows, now_ms=now_ms, mark=0, acked_offset=ACKNOWLEDGED)
