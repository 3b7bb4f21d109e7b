"""One policy over recorded events: the worker's own core, with the clock of the recording.

The clock moves from record to record; on the way, whatever is due fires at its own time. So absences, dormancy, exits
by the clock and quiet hours are as they would have been; users are counted for percentiles, and changes of the catalog
are told, as a worker does. Nothing is published.

What a recording cannot tell: how people would have answered notifications that they never got. Answers in it count
where the policy decides to send what was really sent (the decision has the same id); else they are passed by. So the
model of opens and the choice of variants learn from those alone; propensities, recommendations and personas, from all.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import xxhash

from app.core import owed
from app.core.effects import Effects
from app.core.features import open_features
from app.core.panes import NEVER_MS
from app.core.plan import Plan, Scorer
from app.core.processor import Processor
from app.core.profile import Profile
from app.learning.book import ModelBook
from app.trial.acknowledged import ACKNOWLEDGED
from app.trial.census import TrialCensus
from app.trial.records import Recorded
from app.trial.shelf import ROUND_MS, Shelf
from app.trial.tutor import Known, Tutor, serve
from schemas.decisions import decode_decision
from schemas.erasures import Subjects
from schemas.percentiles import Percentiles
from schemas.segments import decode_membership
from schemas.topics import CATALOG, DECISIONS, OUTCOMES, SEGMENTS

REMEMBERED_MAX: Final = 20
"""Decisions of a user that are kept to be shown; all of them are compared."""
COUNTED_EVERY_MS: Final = 300_000
ITEMS_MAX: Final = 100_000


class Said(NamedTuple):
    """A decision about a user, as far as two policies can be compared by it."""

    at_ms: int
    campaign: str
    action: str
    reason: str


class Spoken:
    """What was decided about one user: a digest of everything, and the first few decisions."""

    __slots__ = ("digest", "first")

    def __init__(self) -> None:
        self.digest = b""
        self.first: list[Said] = []

    def add(self, said: Said) -> None:
        """One decision more."""
        text = f"{said.at_ms}\x1f{said.campaign}\x1f{said.action}\x1f{said.reason}"
        self.digest = xxhash.xxh3_128_digest(self.digest + text.encode())
        if len(self.first) < REMEMBERED_MAX:
            self.first.append(said)


class Trial:
    """Runs one policy; what it did stands in the attributes.

    Parameters
    ----------
    scorer
        The model; the same for policies that are compared.
    subjects
        Needed to know a request to erase: nothing is decided about the user from there on.
    counted_every_ms
        How often users are counted for percentiles, in event time.
    items_max
        Of the catalog: what a worker keeps.
    learned_every_ms
        How often what was learned by then is served, in event time; 0 to learn nothing.
    book
        Of the `models` topic: what is served, in place of learning.

    Attributes
    ----------
    decisions
        (campaign, action, reason) to number.
    changes
        (segment, change) to number.
    spoken
        By user.
    """

    def __init__(
        self,
        plan: Plan,
        scorer: Scorer,
        subjects: Subjects | None = None,
        *,
        counted_every_ms: int = COUNTED_EVERY_MS,
        items_max: int = ITEMS_MAX,
        learned_every_ms: int = 0,
        book: ModelBook | None = None,
    ) -> None:
        self.plan = plan
        self.decisions: Counter[tuple[str, str, str]] = Counter()
        self.changes: Counter[tuple[str, str]] = Counter()
        self.fates: Counter[str] = Counter()
        self.spoken: dict[str, Spoken] = {}
        self._processor = Processor(plan, scorer, open_features, subjects)
        self._rows: dict[bytes, Profile] = {}
        self._due: list[tuple[int, bytes]] = []
        self._now_ms = -1
        self._census = TrialCensus(self._processor, self._rows, counted_every_ms)
        self._shelf = Shelf(self._processor, self._rows, items_max)
        self._served = serve(self._processor, book) if book is not None else []
        self._tutor = Tutor(self._processor, learned_every_ms) if learned_every_ms and book is None else None

    def take(self, records: Iterable[Recorded]) -> None:
        """Apply records, in the order of time: see `app.trial.order`."""
        for record in records:
            if self._now_ms < 0:
                self._now_ms = record.at_ms
                self._census.begin(record.at_ms)
            self.advance(record.at_ms)
            if record.topic == CATALOG:
                self._shelf.take(record, self._now_ms)
                continue
            self._settle(
                self._processor.process(
                    [record],
                    "",
                    record.partition,
                    self._rows,
                    now_ms=self._now_ms,
                    acked_offset=ACKNOWLEDGED,
                    reload=None,
                )
            )

    def finish(self) -> None:
        """The recording has ended: what it changed at last is still told."""
        self.advance(self._now_ms + ROUND_MS)

    def members(self) -> Mapping[str, set[bytes]]:
        """Who is in which segment at the end, by name."""
        found: dict[str, set[bytes]] = {segment.name: set() for segment in self.plan.segments}
        for key, row in self._rows.items():
            for segment_id in row.segments:
                if (segment := self.plan.segment_by_id.get(segment_id)) is not None:
                    found[segment.name].add(key)
        return found

    def users(self) -> int:
        """How many have a row."""
        return len(self._rows)

    def thresholds(self) -> Mapping[str, Percentiles]:
        """Where percentiles begin at the end, by number."""
        return self._census.thresholds()

    def models(self) -> list[Known]:
        """What was learned by the end, or served all along."""
        return self._served if self._tutor is None else self._tutor.known()

    def personas(self) -> list[str]:
        """Names of the personas that are told apart at the end."""
        names = self.plan.personas.names if self.plan.personas is not None else {}
        return [names.get(f"p{one.id}", one.name) for one in self._processor.personas.personas]

    @property
    def wants_catalog(self) -> bool:
        """Whether the policy has triggers on the catalog."""
        return self._shelf.wanted

    @property
    def catalog_changes(self) -> int:
        """Changes of the catalog that were told."""
        return self._shelf.changes

    def advance(self, at_ms: int) -> None:
        """Move the clock, never back; what comes due on the way happens at its time."""
        at_ms = max(at_ms, self._now_ms)
        while (due_ms := self._next_ms()) <= at_ms:
            self._now_ms = now_ms = max(due_ms, self._now_ms)
            if self._next_timer_ms() <= now_ms:
                self._fire(now_ms)
            elif self._shelf.next_ms <= now_ms:
                self._settle_all(self._shelf.run(now_ms))
            elif self._tutor is not None and self._tutor.next_ms <= now_ms:
                self._tutor.publish(now_ms)
            else:
                self._settle_all(self._census.run(now_ms))
        self._now_ms = at_ms

    def _next_ms(self) -> int:
        taught_ms = NEVER_MS if self._tutor is None else self._tutor.next_ms
        return min(self._next_timer_ms(), self._shelf.next_ms, self._census.next_ms, taught_ms)

    def _next_timer_ms(self) -> int:
        return self._due[0][0] if self._due else NEVER_MS

    def _fire(self, now_ms: int) -> None:
        keys = set()
        while self._due and self._due[0][0] <= now_ms:
            keys.add(heapq.heappop(self._due)[1])
        self._settle(self._processor.fire(sorted(keys), self._rows, now_ms=now_ms, mark=0, acked_offset=ACKNOWLEDGED))

    def _settle_all(self, effects: Iterable[Effects]) -> None:
        for one in effects:
            self._settle(one)

    def _settle(self, effects: Effects) -> None:
        for due in effects.due:
            heapq.heappush(self._due, due)
        self._shelf.wished(effects.wished)
        for row in effects.changed.values():
            owed.settle(row)
        for labels, number in effects.counts.items():
            if labels[0] == "events":
                self.fates[labels[1]] += number
        if self._tutor is not None:
            self._tutor.learn((output.value for output in effects.outputs if output.topic == OUTCOMES), self._now_ms)
        for output in effects.outputs:
            if output.topic == DECISIONS:
                made = decode_decision(output.value or b"")
                said = Said(made.decided_ms, made.campaign, made.action, made.reason)
                self.decisions[said.campaign, said.action, said.reason] += 1
                self.spoken.setdefault(made.user, Spoken()).add(said)
            elif output.topic == SEGMENTS:
                change = decode_membership(output.value or b"")
                self.changes[change.segment, change.change] += 1
