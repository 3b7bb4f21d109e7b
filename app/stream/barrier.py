"""The acknowledgement barrier: which offset may be committed.

Batches of a partition are begun in order and completed in any order; the committable offset is the end of the
unbroken run of completed ones. A batch that is given back ends that run for good. Cost is O(1) a batch, whatever gaps
the offsets have, because a batch's end stands for all its records. Pure: no Kafka, no clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

TopicPartition = tuple[str, int]

_COMPLETED: Final = 1
_GIVEN_BACK: Final = 2


class _Run:
    """In-flight batches of one partition, oldest first, as [end offset, state].

    `closed` after one was given back: nothing more is committed.
    """

    __slots__ = ("closed", "committable", "generation", "inflight")

    def __init__(self, generation: int) -> None:
        self.generation: Final = generation
        self.inflight: deque[list[int]] = deque()
        self.committable: int | None = None
        self.closed = False


class Barrier:
    """Offset bookkeeping for batched topics.

    A batch that was begun in an older generation of the group completes without effect: its partition may belong to
    another worker by now, which will process it again.
    """

    def __init__(self) -> None:
        self._runs: dict[TopicPartition, _Run] = {}
        self._drained = asyncio.Event()
        self._drained.set()
        self._inflight = 0

    def begin(self, tp: TopicPartition, next_offset: int, generation: int) -> None:
        """A batch that ends before `next_offset` is about to be processed.

        Raises
        ------
        AssertionError
            If it does not come after everything begun before: the transport delivered out of order.
        """
        run = self._runs.get(tp)
        if run is None or run.generation != generation:
            self.forget(tp)
            run = self._runs[tp] = _Run(generation)
        newest = run.inflight[-1][0] if run.inflight else run.committable
        assert newest is None or next_offset > newest, f"{tp}: batch to {next_offset} begun after {newest}"
        run.inflight.append([next_offset, 0])
        self._inflight += 1
        self._drained.clear()

    def complete(self, tp: TopicPartition, next_offset: int, generation: int) -> None:
        """The batch that ends before `next_offset` is durable."""
        self._end(tp, next_offset, generation, _COMPLETED)

    def give_back(self, tp: TopicPartition, next_offset: int, generation: int) -> None:
        """The batch that ends before `next_offset` is left to whoever reads the partition next."""
        self._end(tp, next_offset, generation, _GIVEN_BACK)

    def _end(self, tp: TopicPartition, next_offset: int, generation: int, state: int) -> None:
        run = self._runs.get(tp)
        if run is None or run.generation != generation:
            return
        inflight = run.inflight
        for entry in inflight:  # nearly always the first: batches complete in order
            if entry[0] == next_offset:
                entry[1] = state
                break
        while inflight and inflight[0][1]:
            end, how = inflight.popleft()
            self._inflight -= 1
            run.closed = run.closed or how == _GIVEN_BACK
            if not run.closed:
                run.committable = end
        if not self._inflight:
            self._drained.set()

    def committable(self, tp: TopicPartition) -> int | None:
        """The offset to commit: everything before it is durable. None until a batch has completed."""
        run = self._runs.get(tp)
        return run.committable if run else None

    def partitions(self) -> list[TopicPartition]:
        """Partitions that have something to commit or in flight."""
        return list(self._runs)

    def forget(self, tp: TopicPartition) -> None:
        """The partition was revoked: what is in flight no longer counts."""
        run = self._runs.pop(tp, None)
        if run:
            self._inflight -= len(run.inflight)
            if not self._inflight:
                self._drained.set()

    def hold(self) -> None:
        """Work without a source offset (timers) is in flight: draining waits for `release`."""
        self._inflight += 1
        self._drained.clear()

    def release(self) -> None:
        """The inverse of `hold`."""
        self._inflight -= 1
        assert self._inflight >= 0, "released more than was held"
        if not self._inflight:
            self._drained.set()

    @property
    def inflight(self) -> int:
        """Batches begun and not completed (or completed behind an incomplete one)."""
        return self._inflight

    async def drained(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; False when that took longer than `timeout_s`."""
        try:
            await asyncio.wait_for(self._drained.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
