"""Whether an event that a row takes for a replay is one: the log itself says it.

A row holds the offset of its last event, and passes events by that stand at or before it. That is right as long as the
log is the one that the row was folded from. In a topic that was deleted and made anew, in one that was mirrored from
another cluster, or behind an end that a broker has lost, other events stand at those offsets, and they would be lost
without a word. But then the row's own last event is not where the row says: beyond the log's end, or there is somebody
else's in its place. Only replays are looked at, so an event costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.core.profile import Profile

LOOKS: Final = 8
"""Records that are looked up for a partition after an assignment. In another log nearly every one tells."""

Doubt = tuple[int, bytes]
"""Where a row's last event stands, as the row says; and its key."""


def doubts(records: Sequence[Any], rows: Mapping[bytes, Profile]) -> list[Doubt]:
    """Of the rows of these records, after they were folded: those whose last event is not among the records."""
    here = {record.offset: record.key for record in records}
    found = {record.key: rows.get(record.key) for record in records if record.key}
    return [(row.offset, key) for key, row in found.items() if row and row.offset >= 0 and here.get(row.offset) != key]


def another_log(topic: str, partition: int, offset: int, found: str) -> str:
    """What to say before the end. `offset` is the row's; `found` what is there instead."""
    return (
        f"{topic}[{partition}] is not the log that the rows were folded from: a row has seen offset {offset}, {found}. "
        f"The topic was deleted and made anew, mirrored, or a broker lost its end; events below that offset would be "
        f"taken for replays and lost. Stop all workers, then `nudge topics lift` (docs/how-to/events-made-anew.md)"
    )
