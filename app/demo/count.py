"""The demo's bookkeeping: what went in, what came out, and whether anything was lost or done twice.

It believes nobody: it reads the topics from their first offset and compares. An event is accounted for when the
user's newest row in the changelog has applied it, or when it stands in the dead letters with its partition and offset.
A row's own counter must equal the number of distinct messages of that user up to the row's offset: fewer is a loss,
more is a double count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Protocol

import msgspec

from app.core.profile import Profile, decode_profile
from schemas.dead_letters import read_dead_letter
from schemas.decisions import Decision, decode_decision
from schemas.events import NOTIFICATION_SENT, Event, Rejected, decode_event
from schemas.outcomes import decode_outcome
from schemas.segments import decode_membership

Place = tuple[int, int]
"""Partition and offset in `events`."""


class TopicRecord(Protocol):
    """What is read of a record."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Verdict(msgspec.Struct, frozen=True):
    """Each is a number of events or decisions, and 0 when all is well.

    Parameters
    ----------
    unfolded
        Valid events in the topic that their user's row has not applied.
    undead
        Refused records that are not in the dead letters.
    vanished
        Offsets that the broker acknowledged but the topic does not hold.
    folded_twice
        Applications of events beyond the first.
    sent_twice
        Deliveries of a decision beyond the first.
    """

    unfolded: int
    undead: int
    vanished: int
    folded_twice: int
    sent_twice: int

    @property
    def lost(self) -> int:
        """Events that were acknowledged and are neither applied nor dead-lettered."""
        return self.unfolded + self.undead + self.vanished

    @property
    def duplicates(self) -> int:
        """Things that were done twice."""
        return self.folded_twice + self.sent_twice


class Tally:
    """Counts what stands in the topics; feed it every record once, in any order between topics."""

    def __init__(self) -> None:
        self.events = 0
        self.event_names: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self.decisions_sent = 0
        self.by_campaign: Counter[str] = Counter()
        """Decisions to send."""
        self.suppressed: Counter[str] = Counter()
        self.repeated_decisions = 0
        self.examples: dict[str, tuple[float, int, int]] = {}
        """By decision id: score, label, decision time."""
        self.newest: Decision | None = None
        self.latencies_ms: list[int] = []
        self._stamps: dict[Place, int] = {}
        self._messages: dict[bytes, list[tuple[int, str]]] = defaultdict(list)
        self._partition: dict[bytes, int] = {}
        self._refused: set[Place] = set()
        self._dead: set[Place] = set()
        self._decision_ids: set[str] = set()
        self._unmatched: list[tuple[Place, int]] = []
        self._receipts: Counter[str] = Counter()
        self._members: dict[str, set[str]] = defaultdict(set)
        self._rows: dict[bytes, bytes | None] = {}

    @property
    def users(self) -> int:
        """Users with a valid event."""
        return len(self._messages)

    @property
    def sends(self) -> int:
        """Decisions that the sender reported as sent."""
        return len(self._receipts)

    def event(self, record: TopicRecord) -> Event | None:
        """A record of `events`; gives the event when it is a valid one."""
        place = (record.partition, record.offset)
        self.events += 1
        self._stamps[place] = record.timestamp
        event = decode_event(record.value, record.key)
        if isinstance(event, Rejected):
            self._refused.add(place)
            return None
        assert record.key is not None, "a valid event has a key"
        self._partition[record.key] = record.partition
        self._messages[record.key].append((record.offset, event.message_id or f"@{record.offset}"))
        self.event_names[event.event or event.type] += 1
        if event.event == NOTIFICATION_SENT:
            self._receipts[str(event.properties.get("decisionId"))] += 1
        return event

    def decision(self, record: TopicRecord) -> None:
        """A record of `decisions`; one that was emitted again after a crash counts once."""
        assert record.value is not None, "a decision has a value"
        decision = decode_decision(record.value)
        if decision.shadow:
            return
        if decision.id in self._decision_ids:
            self.repeated_decisions += 1
            return
        self._decision_ids.add(decision.id)
        if decision.action == "send":
            self.decisions_sent += 1
            self.by_campaign[decision.campaign] += 1
            self.newest = decision
        else:
            self.suppressed[decision.reason] += 1
        if decision.source_offset >= 0:
            self._unmatched.append(((record.partition, decision.source_offset), record.timestamp))

    def membership(self, record: TopicRecord) -> None:
        """A record of `segments`."""
        assert record.value is not None, "a membership change has a value"
        change = decode_membership(record.value)
        if change.change == "enter":
            self._members[change.segment].add(change.user)
        else:
            self._members[change.segment].discard(change.user)

    def outcome(self, record: TopicRecord) -> None:
        """A record of `outcomes`."""
        assert record.value is not None, "an outcome has a value"
        outcome = decode_outcome(record.value)
        if outcome.label in (0, 1):
            self.examples.setdefault(outcome.id, (outcome.score, outcome.label, outcome.decided_ms))

    def dead_letter(self, record: TopicRecord) -> None:
        """A record of `dead-letters`; one that was emitted again after a crash counts once."""
        letter = read_dead_letter(list(record.headers))
        place = (letter.partition, letter.offset)
        if place not in self._dead:
            self._dead.add(place)
            self.dead_letters[letter.reason] += 1

    def row(self, record: TopicRecord) -> None:
        """A record of the profiles changelog: the newest row of a user counts."""
        assert record.key is not None, "a row has a key"
        self._rows[record.key] = record.value

    def segment_sizes(self) -> dict[str, int]:
        """Users in each segment, by name."""
        return {name: len(members) for name, members in sorted(self._members.items())}

    def personas(self) -> dict[str, int]:
        """Users by the persona that their newest row has, those of the largest first."""
        found: Counter[str] = Counter()
        for key in self._messages:
            profile = self._profile(key)
            if profile is not None and profile.propensity is not None and profile.propensity.persona_name:
                found[profile.propensity.persona_name] += 1
        return dict(found.most_common())

    def latencies(self) -> list[int]:
        """From an event's record to its decision's, ms, for every decision that an event caused so far."""
        waiting = []
        for place, decided_ms in self._unmatched:
            stamp = self._stamps.get(place)
            if stamp is None:  # the decision was read before its event
                waiting.append((place, decided_ms))
            else:
                self.latencies_ms.append(decided_ms - stamp)
        self._unmatched = waiting
        return self.latencies_ms

    def behind(self, acknowledged: Sequence[Sequence[range]]) -> int:
        """What is still to come before everything we produced is accounted for: acknowledged records that have not been
        read here, valid events that no row has applied, and refused ones that are not dead-lettered.
        """
        ours = _ends(acknowledged)
        unfolded = 0
        for key, messages in self._messages.items():
            profile = self._profile(key)
            reached = profile.offset if profile else -1
            end = ours[self._partition[key]]
            unfolded += sum(reached < offset < end for offset in self._first_offsets(key, messages))
        return unfolded + len(self._refused - self._dead) + self._unseen(acknowledged)

    def judge(self, acknowledged: Sequence[Sequence[range]], delivered: Counter[str] | None = None) -> Verdict:
        """Compare everything with everything, when everything has been read.

        Parameters
        ----------
        acknowledged
            By partition of `events`, the offsets that the broker acknowledged to our producer. Others (receipts) may
            follow them; of those only the ones that the rows have reached are judged.
        delivered
            Deliveries by decision id, as the provider counts them.
        """
        ours = _ends(acknowledged)
        unfolded = folded_twice = 0
        for key, messages in self._messages.items():
            profile = self._profile(key)
            reached, applied = (profile.offset, profile.events) if profile else (-1, 0)
            firsts = self._first_offsets(key, messages)
            expected = sum(offset <= reached for offset in firsts)
            unfolded += max(0, expected - applied)
            unfolded += sum(reached < offset < ours[self._partition[key]] for offset in firsts)
            folded_twice += max(0, applied - expected)
        receipts = sum(self._receipts.values()) - len(self._receipts)
        deliveries = sum(delivered.values()) - len(delivered) if delivered else 0
        return Verdict(
            unfolded=unfolded,
            undead=len(self._refused - self._dead),
            vanished=self._unseen(acknowledged),
            folded_twice=folded_twice,
            sent_twice=max(receipts, deliveries),  # one double delivery may show in both
        )

    def _unseen(self, acknowledged: Sequence[Sequence[range]]) -> int:
        stamps = self._stamps
        return sum(
            (partition, offset) not in stamps
            for partition, runs in enumerate(acknowledged)
            for run in runs
            for offset in run
        )

    def _profile(self, key: bytes) -> Profile | None:
        raw = self._rows.get(key)
        return decode_profile(raw) if raw is not None else None

    def _first_offsets(self, key: bytes, messages: list[tuple[int, str]]) -> list[int]:
        """Where each distinct message of a user first stands, without those dead-lettered for their time."""
        partition = self._partition[key]
        first: dict[str, int] = {}
        for offset, message_id in messages:
            if (partition, offset) not in self._dead:
                first.setdefault(message_id, offset)
        return list(first.values())


def _ends(acknowledged: Sequence[Sequence[range]]) -> list[int]:
    """By partition, the offset after the last one that was acknowledged to us."""
    return [max((run.stop for run in runs), default=0) for runs in acknowledged]
