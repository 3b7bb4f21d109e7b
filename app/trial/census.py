"""Percentiles in a trial: users are counted as by `app.stream.census`, over rows in memory, by the recording's clock.

What the worker spreads over its partitions and over time is one pass here. Who is counted, when a threshold moves and
whose row must follow is asked of the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.core.effects import Effects
from app.core.panes import NEVER_MS
from app.core.percentiles import Board, Tally, counted
from app.core.processor import Processor
from app.core.profile import Profile
from app.trial.acknowledged import ACKNOWLEDGED
from schemas.percentiles import Percentiles, percentiles_key


class TrialCensus:
    """Counts every `every_ms`, from the first record on; `next_ms` is when the next count is due.

    Parameters
    ----------
    rows
        Of all users, as they are.
    """

    def __init__(self, processor: Processor, rows: dict[bytes, Profile], every_ms: int) -> None:
        self._processor = processor
        self._rows = rows
        self._every_ms = every_ms
        self._board = Board()
        self.next_ms = NEVER_MS

    def begin(self, now_ms: int) -> None:
        """The first record has come."""
        if self._processor.measured:
            self.next_ms = now_ms

    def run(self, now_ms: int) -> Iterator[Effects]:
        """A count; then rows follow the thresholds, if they have moved."""
        self.next_ms = now_ms + self._every_ms
        measured = self._processor.measured
        tally = Tally(measured, self._processor.policy_id)
        yield self._follow(now_ms, tally)
        moved = False
        for one in measured:
            self._take(counted(one, tally.sketches[one.text], 0, now_ms))
            record = self._board.due(one, 1, now_ms)
            if record is not None:
                moved = self._take(record) or moved
        if moved:
            self._processor.serve(self._board.buckets())
            yield self._follow(now_ms, Tally(measured, self._processor.policy_id))

    def thresholds(self) -> Mapping[str, Percentiles]:
        """Those in force, by number."""
        return self._board.thresholds()

    def _take(self, record: Percentiles) -> bool:
        return self._board.take(percentiles_key(record), record)

    def _follow(self, now_ms: int, tally: Tally) -> Effects:
        astray = [
            key
            for key, row in self._rows.items()
            if tally.put(row, now_ms, user := key.decode()) and self._processor.astray(row, user, now_ms)
        ]
        return self._processor.adjust(astray, self._rows, now_ms=now_ms, mark=0, acked_offset=ACKNOWLEDGED)
