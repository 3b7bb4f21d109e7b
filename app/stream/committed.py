"""What producers have committed: all that a reader here takes for said.

A producer with transactions may take back what stands in the log already. Until it has ended its transaction nobody
reads beyond its first record (the last stable offset), and of what it took back nothing is delivered. The offsets of
both, and those of the markers that end a transaction, are gaps. Producers without transactions are read as ever.

Whoever reads imports this, and so reads whatever bytes name a header (`app.stream.wire`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog

from app.stream import wire

wire.install()

log = structlog.get_logger(__name__)

READ_COMMITTED: Final = "read_committed"
"""`isolation_level` of every consumer of events and of what others than ourselves write."""


def readable_end(consumer: Any, tp: Any) -> int | None:
    """Up to where a partition can be read now; None where the broker has not said it yet.

    Waiting for the high watermark instead would be waiting for the end of somebody's transaction, which may be hanging.
    """
    end: int | None = consumer.highwater(tp)
    stable: int | None = consumer.last_stable_offset(tp)
    if end is None or stable is None or stable < 0:  # brokers of before transactions say -1
        return end
    return min(end, stable)


LONG_S: Final = 60.0
"""A transaction that holds a partition back for so long is said in the log, and fires an alert."""


class Held:
    """For how long partitions have been held back by a transaction that somebody has open. Pure: the time is given.

    Nobody can read on, and nothing here is at fault. Kafka ends it with the producer's `transaction.timeout.ms`, 15
    minutes at most as shipped; one that hangs for another reason stays until an operator ends it.
    """

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], tuple[int, float]] = {}
        self._said: set[tuple[str, int]] = set()
        self.seconds: dict[tuple[str, int], float] = {}
        """By topic and partition; 0 where nothing is held back."""

    def look(self, ends: Mapping[tuple[str, int], tuple[int, int]], now: float) -> None:
        """Take a look at our partitions: up to where each can be read, and where it ends."""
        since: dict[tuple[str, int], tuple[int, float]] = {}
        for tp, (stable, end) in ends.items():
            if 0 <= stable < end:
                known, at = self._since.get(tp, (stable, now))
                since[tp] = (stable, at if known == stable else now)
        self._since = since
        self.seconds = {tp: now - since[tp][1] if tp in since else 0.0 for tp in ends}
        long = {tp for tp, seconds in self.seconds.items() if seconds >= LONG_S}
        for topic, partition in sorted(long - self._said):
            log.warning(
                "transaction_open",
                topic=topic,
                partition=partition,
                offset=since[topic, partition][0],
                seconds=round(self.seconds[topic, partition]),
                effect="nobody reads beyond its first record",
            )
        self._said = long
