"""What one call of the processor accumulates, and the only place where a row's outbox is written.

Lists and not counters, because a list can be cut back to where it was when an event turns out to raise. Whoever
starts an event sets `untouched`; the first thing that the event leaves notes how long the lists were.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from librt.strings import BytesWriter

from app.core.catalog import NO_CATALOG, Catalog
from app.core.choices import NOTHING_KNOWN, Choices
from app.core.effects import Effects, Record
from app.core.index import PlanIndex
from app.core.item_table import NO_ITEMS, ItemTable
from app.core.owed import OWED_MOVES_BYTES_MAX, Wording
from app.core.persona_table import NO_PERSONAS, PersonaTable
from app.core.plan import Scorer
from app.core.profile import Profile
from app.core.row_parts import OutboxEntry, Output
from schemas.events import Event
from schemas.topics import SEGMENTS

NO_SCORERS: Final[Mapping[str, Scorer]] = {}
OWED_BYTES_MAX: Final = 256 * 1024
"""What a row may owe. Kafka refuses a changelog record of more than a megabyte, and one user must not stop a worker."""
TRACE_BYTES_MAX: Final = 128
ALL_SUSPECT: Final = -1
"""As `Batch.suspects`: a window holds events of a time that is still to come, and nothing shows what they change."""
_ENVELOPE_BYTES: Final = 256  # headers and framing, roughly
_output: Final = Output  # both looked up once, see app.core.owed
_fields: Final = msgspec.structs.astuple
_HEARD: Final = (
    "type", "event", "user_id", "anonymous_id", "message_id",
    "timestamp", "sent_at", "previous_id", "context", "properties",
)  # fmt: skip
assert Event.__struct_fields__[: len(_HEARD)] == _HEARD, "`Batch.hear` takes them by their places"
Name = TypeVar("Name")


class Batch:
    """The accumulator and the scene: time, plan, and whose turn it is.

    `mark`, `key` (`user` as UTF-8), `user` and `source` are those of the event (or, with `source` None, the timers)
    being processed; `hear` sets what else is asked of nearly every event;
    `suspects` are the segments (bits, by their places in `EventOps.segments`) that folding it may have changed.
    """

    __slots__ = (
        "_lengths",
        "_now",
        "_owed",
        "catalog",
        "choices",
        "context",
        "due",
        "index",
        "items",
        "key",
        "kind",
        "latencies_ms",
        "mark",
        "message_id",
        "moved",
        "moves",
        "name",
        "now_ms",
        "outputs",
        "partition",
        "personas",
        "properties",
        "scorers",
        "source",
        "stamp",
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
        self._owed = BytesWriter()
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
        self.kind = ""
        self.name = ""
        self.message_id: str | None = None
        self.stamp: datetime | int | None = None
        self.context: dict[str, Any] = {}
        self.properties: dict[str, Any] = {}
        self.suspects = 0
        self.untouched = True
        self.outputs: list[Output] = []
        self.tally: list[tuple[str, ...]] = []
        self.moves: list[Wording] = []
        self.latencies_ms: list[int] = []
        self.due: list[tuple[int, bytes]] = []
        self.moved: set[bytes] = set()
        self._lengths = (0, 0, 0, 0)

    def hear(self, event: Event) -> None:
        """Look at an event: all its fields at once, as to ask a struct for one takes as long as for eleven."""
        fields: tuple[Any, ...] = _fields(event)
        self.kind = fields[0]
        self.name = fields[1]
        self.user = fields[2] or fields[3] or ""
        self.message_id = fields[4]
        self.stamp = fields[5]
        self.context = fields[8]
        self.properties = fields[9]

    def count(self, *labels: str) -> None:
        """Increment a metric."""
        if self.untouched:
            self._save()
        self.tally.append(labels)

    def wake(self, profile: Profile, at_ms: int) -> None:
        """Have the row looked at then, if nothing had it looked at earlier. Called before the row says so itself.

        Never cut back: to look early is harmless.
        """
        if at_ms < profile.due_ms():
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
        """Owe a change of membership, as `emit` an output, and count it; `origin` makes its id."""
        if self.untouched:
            self._save()
        key = self.key
        trace = trace_of(self.source)
        identity = wording.identity(key, origin)
        owed = self._owed  # one for all: what a row owes is copied once, into bytes of its own
        owed.truncate(0)
        owed.write(profile.owed)
        wording.owe(owed, self.mark, self.now_ms, identity, trace)
        if len(owed) <= OWED_MOVES_BYTES_MAX:
            profile.owed = owed.getvalue()
        else:
            self.count("unowed_outputs")
        value = wording.value(identity, self.user, self._now)
        if trace:
            self.outputs.append(_output(SEGMENTS, key, value, [("traceparent", trace)]))
        else:
            self.outputs.append(_output(SEGMENTS, key, value))
        self.moves.append(wording)

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
        counts = effects.counts
        for labels in self.tally:
            counts[labels] += 1
        if self.moves:
            self._pour_moves(effects)

    def _pour_moves(self, effects: Effects) -> None:
        """Summed up first: counters are slow to change, and nearly every event moves somebody."""
        moves: dict[Wording, int] = {}
        for wording in self.moves:
            moves[wording] = moves.get(wording, 0) + 1
        members: dict[str, int] = {}
        entered = 0
        for wording, number in moves.items():
            if wording.change == "enter":
                entered += number
                members[wording.segment] = members.get(wording.segment, 0) + number
            else:
                members[wording.segment] = members.get(wording.segment, 0) - number
        add_up(effects.members, members)
        for direction, number in (("enter", entered), ("leave", len(self.moves) - entered)):
            if number:
                effects.counts["segment_changes", direction] += number


def add_up(tally: dict[Name, int], more: dict[Name, int]) -> None:
    """Add `more` to what is counted."""
    for name, number in more.items():
        tally[name] = tally.get(name, 0) + number


def trace_of(source: Record | None) -> bytes | None:
    """The W3C trace context that the source record carries."""
    if source is not None and (headers := source.headers):  # nearly always there are none
        for name, value in headers:
            if name == "traceparent" and value is not None and len(value) <= TRACE_BYTES_MAX:
                return value
    return None


def _size(output: Output) -> int:
    return len(output.value or b"") + len(output.key or b"") + _ENVELOPE_BYTES
