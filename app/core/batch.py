"""What one call of the processor accumulates, and the only place where a row's outbox is written.

Lists and not counters, because a list can be cut back to where it was when an event turns out to raise. Whoever
starts an event sets `untouched`; the first thing that the event leaves notes how long the lists were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.core.catalog import NO_CATALOG, Catalog
from app.core.choices import NOTHING_KNOWN, Choices
from app.core.effects import Effects, Record
from app.core.index import PlanIndex
from app.core.item_table import NO_ITEMS, ItemTable
from app.core.owed import OWED_MOVES_BYTES_MAX, Wording
from app.core.persona_table import NO_PERSONAS, PersonaTable
from app.core.plan import Scorer
from app.core.profile import Profile, due_ms
from app.core.row_parts import OutboxEntry, Output
from schemas.topics import SEGMENTS

NO_SCORERS: Final[Mapping[str, Scorer]] = {}
OWED_BYTES_MAX: Final = 256 * 1024
"""What a row may owe. Kafka refuses a changelog record of more than a megabyte, and one user must not stop a worker."""
TRACE_BYTES_MAX: Final = 128
ALL_SUSPECT: Final = -1
"""As `Batch.suspects`: a window holds events of a time that is still to come, and nothing shows what they change."""
_ENVELOPE_BYTES = 256  # headers and framing, roughly


class Batch:
    """The accumulator and the scene: time, plan, and whose turn it is.

    `mark`, `key`, `user` and `source` are those of the event (or, with `source` None, the timers) being processed;
    `suspects` are the segments (bits, by their places in `EventOps.segments`) that folding it may have changed.
    """

    __slots__ = (
        "_lengths",
        "_now",
        "catalog",
        "choices",
        "due",
        "index",
        "items",
        "key",
        "latencies_ms",
        "mark",
        "moved",
        "moves",
        "now_ms",
        "outputs",
        "partition",
        "personas",
        "scorers",
        "source",
        "suspects",
        "tally",
        "untouched",
        "user",
        "wished",
    )

    def __init__(
        self,
        index: PlanIndex,
        now_ms: int,
        choices: Choices = NOTHING_KNOWN,
        scorers: Mapping[str, Scorer] = NO_SCORERS,
        items: ItemTable = NO_ITEMS,
        personas: PersonaTable = NO_PERSONAS,
        catalog: Catalog = NO_CATALOG,
    ) -> None:
        self.index = index
        self.now_ms = now_ms
        self._now = b"%d" % now_ms
        self.choices = choices
        self.scorers = scorers
        self.items = items
        self.personas = personas
        self.catalog = catalog
        self.wished: list[tuple[int, bytes]] = []
        self.mark = -1
        self.partition = 0
        self.key = b""
        self.user = ""
        self.source: Record | None = None
        self.suspects = 0
        self.untouched = True
        self.outputs: list[Output] = []
        self.tally: list[tuple[str, ...]] = []
        self.moves: list[tuple[str, int]] = []
        self.latencies_ms: list[int] = []
        self.due: list[tuple[int, bytes]] = []
        self.moved: set[bytes] = set()
        self._lengths = (0, 0, 0, 0)

    def count(self, *labels: str) -> None:
        """Increment a metric."""
        if self.untouched:
            self._save()
        self.tally.append(labels)

    def move(self, segment: str, change: int) -> None:
        """Change a segment's size, by 1 or -1."""
        if self.untouched:
            self._save()
        self.moves.append((segment, change))

    def wake(self, profile: Profile, at_ms: int) -> None:
        """Have the row looked at then, if nothing had it looked at earlier. Called before the row says so itself.

        Never cut back: to look early is harmless.
        """
        if at_ms < due_ms(profile):
            self.due.append((at_ms, self.key))

    def emit(self, profile: Profile, output: Output) -> None:
        """Owe an output: from the row, so that it survives, and from this batch, so that it leaves now.

        A row that owes more than `OWED_BYTES_MAX` owes no more: what it emits leaves all the same, but would be lost
        if the worker died before it was acknowledged.
        """
        if self.untouched:
            self._save()
        owed = _size(output)
        for entry in profile.outbox:
            owed += _size(entry.output)
        if owed <= OWED_BYTES_MAX:
            profile.outbox.append(OutboxEntry(self.mark, output))
        else:
            self.count("unowed_outputs")
        self.outputs.append(output)

    def emit_move(self, profile: Profile, wording: Wording, origin: int) -> None:
        """Owe a change of membership, as `emit` an output; `origin` makes its id."""
        if self.untouched:
            self._save()
        now_ms, user = self.now_ms, self.user
        trace = trace_of(self.source)
        identity = wording.identity(user, origin)
        owed = profile.owed + wording.pack(self.mark, now_ms, identity, trace)
        if len(owed) <= OWED_MOVES_BYTES_MAX:
            profile.owed = owed
        else:
            self.count("unowed_outputs")
        headers = [("traceparent", trace)] if trace else []
        self.outputs.append(Output(SEGMENTS, self.key, wording.value(identity, user, self._now), headers))

    def _save(self) -> None:
        """Before the first thing that an event leaves: most events leave nothing and do not come here."""
        self._lengths = (len(self.outputs), len(self.tally), len(self.moves), len(self.latencies_ms))
        self.untouched = False

    def cut(self) -> None:
        """Forget what was accumulated since `untouched` was set."""
        if self.untouched:
            return
        outputs, tally, moves, latencies = self._lengths
        del self.outputs[outputs:]
        del self.tally[tally:]
        del self.moves[moves:]
        del self.latencies_ms[latencies:]

    def pour(self, effects: Effects) -> None:
        """Add what was accumulated to the effects."""
        effects.outputs.extend(self.outputs)
        effects.latencies_ms.extend(self.latencies_ms)
        effects.due.extend(self.due)
        effects.moved |= self.moved
        effects.wished.extend(self.wished)
        effects.counts.update(self.tally)
        if self.moves:
            self._pour_moves(effects)

    def _pour_moves(self, effects: Effects) -> None:
        """Summed up first: counters are slow to change, and nearly every event moves somebody."""
        members: dict[str, int] = {}
        entered = 0
        for segment, change in self.moves:
            members[segment] = members.get(segment, 0) + change
            if change > 0:
                entered += 1
        for segment, change in members.items():
            effects.members[segment] += change
        for direction, number in (("enter", entered), ("leave", len(self.moves) - entered)):
            if number:
                effects.counts["segment_changes", direction] += number


def trace_of(source: Record | None) -> bytes | None:
    """The W3C trace context that the source record carries."""
    if source is not None and (headers := source.headers):  # nearly always there are none
        for name, value in headers:
            if name == "traceparent" and value is not None and len(value) <= TRACE_BYTES_MAX:
                return value
    return None


def _size(output: Output) -> int:
    return len(output.value or b"") + len(output.key or b"") + _ENVELOPE_BYTES
