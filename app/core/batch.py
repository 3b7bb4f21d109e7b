"""What one call of the processor accumulates, and the only place where a row's outbox is written.

Lists and not counters, because a list can be cut back to where it was when an event turns out to raise.
"""

from __future__ import annotations

from app.core.effects import Effects, Record
from app.core.index import PlanIndex
from app.core.profile import OutboxEntry, Output, Profile

Savepoint = tuple[int, int, int, int]
"""How long a batch's lists were."""


class Batch:
    """The accumulator and the scene: time, plan, and whose turn it is.

    `mark`, `key`, `user` and `source` are those of the event (or, with `source` None, the timers) being processed.
    """

    __slots__ = ("index", "key", "latencies_ms", "mark", "moves", "now_ms", "outputs", "source", "tally", "user")

    def __init__(self, index: PlanIndex, now_ms: int) -> None:
        self.index = index
        self.now_ms = now_ms
        self.mark = -1
        self.key = b""
        self.user = ""
        self.source: Record | None = None
        self.outputs: list[Output] = []
        self.tally: list[tuple[str, ...]] = []
        self.moves: list[tuple[str, int]] = []
        self.latencies_ms: list[int] = []

    def emit(self, profile: Profile, output: Output) -> None:
        """Owe an output: from the row, so that it survives, and from this batch, so that it leaves now."""
        profile.outbox.append(OutboxEntry(self.mark, output))
        self.outputs.append(output)

    def save(self) -> Savepoint:
        """Where the lists stand now."""
        return (len(self.outputs), len(self.tally), len(self.moves), len(self.latencies_ms))

    def cut(self, to: Savepoint) -> None:
        """Forget what was accumulated since."""
        outputs, tally, moves, latencies = to
        del self.outputs[outputs:]
        del self.tally[tally:]
        del self.moves[moves:]
        del self.latencies_ms[latencies:]

    def pour(self, effects: Effects) -> None:
        """Add what was accumulated to the effects."""
        effects.outputs.extend(self.outputs)
        effects.latencies_ms.extend(self.latencies_ms)
        effects.counts.update(self.tally)
        for segment, change in self.moves:
            effects.members[segment] += change


def trace_of(source: Record | None) -> bytes | None:
    """The W3C trace context that the source record carries."""
    if source is not None:
        for name, value in source.headers:
            if name == "traceparent":
                return value
    return None
