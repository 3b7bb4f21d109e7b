"""What producers have committed: all that a reader here takes for said.

A producer with transactions may take back what stands in the log already. Until it has ended its transaction nobody
reads beyond its first record (the last stable offset), and of what it took back nothing is delivered. The offsets of
both, and those of the markers that end a transaction, are gaps. Producers without transactions are read as ever.

Whoever reads imports this, and so reads whatever bytes name a header (`app.stream.wire`).
"""

from __future__ import annotations

from typing import Any, Final

from app.stream import wire

wire.install()

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
