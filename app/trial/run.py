"""One policy over recorded events: the worker's own core, with the clock of the recording.

The clock moves from record to record; on the way, whatever is due fires at its own time. So absences, dormancy, exits
by the clock and quiet hours are as they would have been. Nothing is published.

What a recording cannot tell: how people would have answered notifications that they never got. Answers in it count
where the policy decides to send what was really sent (the decision has the same id); else they are passed by.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import xxhash

from app.core import owed
from app.core.effects import Effects
from app.core.features import open_features
from app.core.plan import Plan, Scorer
from app.core.processor import Processor
from app.core.profile import Profile
from app.trial.records import Recorded
from schemas.decisions import decode_decision
from schemas.erasures import Subjects
from schemas.segments import decode_membership
from schemas.topics import DECISIONS, SEGMENTS

REMEMBERED_MAX: Final = 20
"""Decisions of a user that are kept to be shown; all of them are compared."""
_ACKNOWLEDGED: Final = 2**62


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

    Attributes
    ----------
    decisions
        (campaign, action, reason) to number.
    changes
        (segment, change) to number.
    spoken
        By user.
    """

    def __init__(self, plan: Plan, scorer: Scorer, subjects: Subjects | None = None) -> None:
        self.plan = plan
        self.decisions: Counter[tuple[str, str, str]] = Counter()
        self.changes: Counter[tuple[str, str]] = Counter()
        self.fates: Counter[str] = Counter()
        self.spoken: dict[str, Spoken] = {}
        self._processor = Processor(plan, scorer, open_features, subjects)
        self._rows: dict[bytes, Profile] = {}
        self._due: list[tuple[int, bytes]] = []
        self._now_ms = 0
        self._partition = -1

    def take(self, records: Sequence[Recorded]) -> None:
        """Apply records, in the order of the recording."""
        for record in records:
            if record.partition != self._partition:
                self._partition, self._now_ms, self._due = record.partition, 0, []
            self._advance(record.at_ms, record.offset)
            self._settle(
                self._processor.process(
                    [record],
                    "",
                    record.partition,
                    self._rows,
                    now_ms=self._now_ms,
                    acked_offset=_ACKNOWLEDGED,
                    reload=None,
                )
            )

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

    def _advance(self, at_ms: int, mark: int) -> None:
        """Move the clock, never back, and fire what comes due on the way."""
        at_ms = max(at_ms, self._now_ms)
        while self._due and self._due[0][0] <= at_ms:
            due_ms = max(self._due[0][0], self._now_ms)
            keys = set()
            while self._due and self._due[0][0] <= due_ms:
                keys.add(heapq.heappop(self._due)[1])
            self._now_ms = due_ms
            self._settle(
                self._processor.fire(sorted(keys), self._rows, now_ms=due_ms, mark=mark, acked_offset=_ACKNOWLEDGED)
            )
        self._now_ms = at_ms

    def _settle(self, effects: Effects) -> None:
        for due in effects.due:
            heapq.heappush(self._due, due)
        for row in effects.changed.values():
            owed.settle(row)
        for labels, number in effects.counts.items():
            if labels[0] == "events":
                self.fates[labels[1]] += number
        for output in effects.outputs:
            if output.topic == DECISIONS:
                made = decode_decision(output.value or b"")
                said = Said(made.decided_ms, made.campaign, made.action, made.reason)
                self.decisions[said.campaign, said.action, said.reason] += 1
                self.spoken.setdefault(made.user, Spoken()).add(said)
            elif output.topic == SEGMENTS:
                change = decode_membership(output.value or b"")
                self.changes[change.segment, change.change] += 1
