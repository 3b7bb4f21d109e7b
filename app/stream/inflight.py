"""How much may be on its way to being durable: so many records, whether they come in few batches or in many."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

INFLIGHT_RECORDS_MAX: Final = 8_192
INFLIGHT_BATCHES_MAX: Final = 64


class InFlight:
    """Room for work, given in the order in which it is asked for.

    A bound on batches alone would be either too much for large ones or too little for small ones: eight small ones that
    wait 10 ms for acknowledgements are 800 a second, however little is in them.
    """

    def __init__(self, records_max: int = INFLIGHT_RECORDS_MAX, batches_max: int = INFLIGHT_BATCHES_MAX) -> None:
        self._records_max = records_max
        self._batches_max = batches_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.records = 0
        self.batches = 0
        self.empty = asyncio.Event()
        """Set while nothing is on its way."""
        self.empty.set()

    async def acquire(self, records: int) -> None:
        """Return when there is room for a batch of `records`; one that is larger than all of it goes alone."""
        if not self._waiting and self._fits(records):
            self._take(records)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (records, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(records)  # it had been given
            elif entry in self._waiting:  # a release may have passed it by already
                self._waiting.remove(entry)
            raise

    def release(self, records: int) -> None:
        """The batch is durable, or was not begun."""
        self.records -= records
        self.batches -= 1
        assert self.batches >= 0, "released more than was acquired"
        if not self.batches:
            self.empty.set()
        while self._waiting and self._fits(self._waiting[0][0]):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._take(wanted)
                turn.set_result(None)

    def _fits(self, records: int) -> bool:
        if not self.batches:
            return True
        return self.batches < self._batches_max and self.records + records <= self._records_max

    def _take(self, records: int) -> None:
        self.records += records
        self.batches += 1
        self.empty.clear()
