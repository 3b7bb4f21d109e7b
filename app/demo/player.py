"""Plays the script by the clock, and the people in it: each notification that was sent may be answered."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from itertools import count
from typing import Final

from app.clock import Clock
from app.demo.audience import Audience, sent_of
from app.demo.feed import EventFeed
from app.demo.script import Delivery
from schemas.events import NOTIFICATION_SENT, Event, encode_event, epoch_ms

TICK_S: Final = 0.05
"""Each tick leaves one batch a partition, and the embedded broker lists all batches of a partition at each fetch."""


class Player:
    """Delivers the script and the audience's answers to `events` when their time has come.

    Parameters
    ----------
    script
        Deliveries in order of time.
    """

    def __init__(self, script: Sequence[Delivery], audience: Audience, clock: Clock, feed: EventFeed) -> None:
        self._script = script
        self._next = 0
        self._audience = audience
        self._clock = clock
        self._feed = feed
        self._answers: list[tuple[int, int, bytes, bytes]] = []
        self._order = count()
        self.answered = 0
        """Answers given so far."""

    @property
    def remaining(self) -> int:
        """Deliveries of the script that are still to come."""
        return len(self._script) - self._next

    def notice(self, event: Event) -> None:
        """An event that stands in `events`: when it is the sender's receipt, a phone buzzes."""
        if event.event != NOTIFICATION_SENT or event.timestamp is None:
            return
        sent = sent_of(event, epoch_ms(event.timestamp))
        if sent is None:
            return
        for at_ms, answer in self._audience.receive(sent):
            heapq.heappush(self._answers, (at_ms, next(self._order), sent.user.encode(), encode_event(answer)))

    def deliver_due(self) -> None:
        """Hand what is due by now to the feed."""
        self._deliver(self._clock.now_ms())

    async def play(self, end_ms: int) -> None:
        """Return when the clock has reached `end_ms`; answers due later are never given."""
        while (now_ms := self._clock.now_ms()) < end_ms:
            self._deliver(now_ms)
            await self._feed.send()
            await asyncio.sleep(TICK_S)
        self._deliver(end_ms - 1)
        await self._feed.flush()

    def _deliver(self, now_ms: int) -> None:
        script, at = self._script, self._next
        while at < len(script) and script[at].at_ms <= now_ms:
            self._feed.add(script[at].key, script[at].value)
            at += 1
        self._next = at
        while self._answers and self._answers[0][0] <= now_ms:
            _at_ms, _order, key, value = heapq.heappop(self._answers)
            self._feed.add(key, value)
            self.answered += 1
