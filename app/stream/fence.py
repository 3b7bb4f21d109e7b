"""Who may write to a changelog partition, as the log itself says it: every owner claims it before its first row.

A claim is a record with a new epoch, and every row carries the epoch of its writer. Of two claims with the same epoch
the first counts, so all readers agree. A row of an older epoch than one read before was written by a worker that had
been deposed: it is void. A claim's value is null, so that a reader who knows nothing of claims deletes a key
that no row has; claims that compaction drops are not missed, since rows name their epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

CLAIM_KEY: Final = b"\xff\xfdclaim"  # no UTF-8 text
EPOCH_HEADER: Final = "e"
OWNER_HEADER: Final = "o"

Headers = list[tuple[str, bytes]]


def row_headers(epoch: int) -> Headers:
    """The headers of the rows of an epoch."""
    return [(EPOCH_HEADER, epoch.to_bytes(4, "big"))]


def claim_headers(epoch: int, owner: bytes) -> Headers:
    """The headers of a claim."""
    return [*row_headers(epoch), (OWNER_HEADER, owner)]


def epoch_of(headers: Sequence[tuple[str, bytes]]) -> int:
    """The epoch of a record; 0 when it was written before there were epochs."""
    for name, value in headers:
        if name == EPOCH_HEADER:
            return int.from_bytes(value, "big")
    return 0


class Fence:
    """Reads one partition's records in the order of their offsets and tells rows from what is void.

    Examples
    --------
    >>> from types import SimpleNamespace as Record
    >>> claim = Record(key=CLAIM_KEY, value=None, headers=claim_headers(2, b"B"))
    >>> late = Record(key=b"ann", value=b"old", headers=row_headers(1))
    >>> fence = Fence()
    >>> fence.admit([claim, late]), fence.epoch, fence.owner, fence.void
    ([], 2, b'B', {b'ann'})
    """

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.owner = b""
        """Of the newest claim that was read; empty when none was."""
        self.void: set[bytes] = set()
        """Keys whose newest record in the log is void: a compaction would keep it and drop the row."""

    def admit(self, records: Sequence[Any]) -> list[tuple[bytes, bytes | None]]:
        """The rows among `records`, in their order."""
        if not self.void:  # nearly all are rows of the epoch that we know, one after the other
            ours = row_headers(self.epoch) if self.epoch else []
            rows = [(record.key, record.value) for record in records if record.headers == ours]
            if len(rows) == len(records):  # no claim among them: it has one header more
                return rows
        return self._admit_each(records)

    def _admit_each(self, records: Iterable[Any]) -> list[tuple[bytes, bytes | None]]:
        rows: list[tuple[bytes, bytes | None]] = []
        for record in records:
            key, headers = record.key, record.headers
            epoch = epoch_of(headers) if headers else 0
            if key == CLAIM_KEY:
                if epoch > self.epoch:
                    self.epoch, self.owner = epoch, dict(headers).get(OWNER_HEADER, b"")
                continue
            if epoch < self.epoch:
                self.void.add(key)
                continue
            if epoch > self.epoch:  # its claim was compacted away
                self.epoch, self.owner = epoch, b""
            if self.void:
                self.void.discard(key)
            rows.append((key, record.value))
        return rows
