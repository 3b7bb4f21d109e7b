"""Where reading went on elsewhere than it had stopped: records that are gone, which aiokafka passes over in silence.

A reader that stays away for longer than a topic keeps its records finds that those at its place have been deleted, and
goes on with the oldest there is. Nothing can bring them back; somebody must know. Gaps that compaction and transactions
leave are no loss: the log still begins before them.

A log that goes on before where it was read to is another log, or has lost its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog
from faust.types import TP

log = structlog.get_logger(__name__)

PAUSE_S: Final = 1.0
"""Between two questions about a partition: where producers have transactions, nearly every fetch begins at a gap."""


class Jumps:
    """Follows the offsets of each partition, and says what is missing.

    Parameters
    ----------
    beginning
        Asks the broker for a partition's oldest offset; only after a gap.
    on_gone
        Told the topic, and how many offsets of it are gone unread.
    """

    def __init__(
        self,
        beginning: Callable[[TP], Awaitable[int]],
        on_gone: Callable[[str, int], object] = lambda topic, gone: None,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._beginning = beginning
        self._on_gone = on_gone
        self._pause_s = pause_s
        self._gaps: dict[TP, list[tuple[int, int]]] = {}
        """Those that wait for the answer to the next question, of partitions that are asked for."""
        self._next: dict[TP, int] = {}
        self.asking: set[asyncio.Task[None]] = set()

    def start(self, offsets: Mapping[TP, int]) -> None:
        """Reading starts anew, at these offsets."""
        self._next = dict(offsets)

    def read(self, tp: TP, first: int, end: int) -> int | None:
        """The records from offset `first` to before `end` have come; what they follow on is not waited for.

        Returns
        -------
        int or None
            The offset up to which the partition had been read, where these records stand before it.
        """
        expected = self._next.get(tp, first)
        self._next[tp] = end
        if first < expected:
            log.error("offsets_went_back", topic=tp.topic, partition=tp.partition, offset=first, expected=expected)
            return expected
        if first > expected:
            if tp in self._gaps:
                self._gaps[tp].append((expected, first))
            else:
                self._gaps[tp] = [(expected, first)]
                task = asyncio.create_task(self._ask(tp))
                self.asking.add(task)
                task.add_done_callback(self.asking.discard)
        return None

    def next_offset(self, tp: TP) -> int | None:
        """Everything before it that will ever come has been delivered."""
        return self._next.get(tp)

    async def _ask(self, tp: TP) -> None:
        """Look into gaps until there are no more; those of a pause together."""
        try:
            while gaps := self._gaps[tp]:
                self._gaps[tp] = []
                await self._look(tp, gaps)
                await asyncio.sleep(self._pause_s)
        finally:
            del self._gaps[tp]

    async def _look(self, tp: TP, gaps: Sequence[tuple[int, int]]) -> None:
        try:
            begins = await self._beginning(tp)
        except Exception as exc:  # the broker is away, or we are on our way out: nothing depends on the answer
            offset = gaps[0][0]
            log.warning("gap_not_explained", topic=tp.topic, partition=tp.partition, offset=offset, error=str(exc))
            return
        for expected, first in gaps:
            gone = min(begins, first) - expected
            if gone > 0:
                log.error("records_gone", topic=tp.topic, partition=tp.partition, offset=expected, records=gone)
                self._on_gone(tp.topic, gone)
