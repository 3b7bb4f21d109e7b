"""A user's stream as the processor sees it: records in, decoded outputs out, one partition, no Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.core.effects import Effects
from app.core.plan import Plan, Scorer
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_parts import Output
from schemas.decisions import Decision, decode_decision
from schemas.erasures import Subjects
from schemas.outcomes import Outcome, decode_outcome
from schemas.segments import MembershipChange, decode_membership
from schemas.topics import DEAD_LETTERS, DECISIONS, OUTCOMES, SEGMENTS
from tests.support.plans import FixedScorer, campaign_only

USER = "u1"
SUBJECTS = Subjects(b"a secret of the tests")
START = 1_772_442_000_000  # 2026-03-02 09:00 UTC, a Monday


class FakeRecord(msgspec.Struct):
    """A consumer record as far as the core reads it."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def track(name: str, at_ms: int | None = None, user: str = USER, **properties: Any) -> dict[str, Any]:
    """A track message; `message_id` among the properties is the message's."""
    message: dict[str, Any] = {"type": "track", "event": name, "userId": user}
    if at_ms is not None:
        message["timestamp"] = at_ms
    if "message_id" in properties:
        message["messageId"] = properties.pop("message_id")
    if "context" in properties:
        message["context"] = properties.pop("context")
    message["properties"] = properties
    return message


def identify(at_ms: int, user: str = USER, **traits: Any) -> dict[str, Any]:
    """An identify message."""
    return {"type": "identify", "userId": user, "timestamp": at_ms, "traits": traits}


def record(message: dict[str, Any] | bytes, offset: int, key: bytes | None = None) -> FakeRecord:
    """A record of a message, or of raw bytes."""
    if isinstance(message, bytes):
        return FakeRecord(key, message, offset)
    return FakeRecord(key or message["userId"].encode(), msgspec.json.encode(message), offset)


@dataclass
class Stream:
    """One partition: gives offsets, keeps rows and everything that came out."""

    plan: Plan
    scorer: Scorer = field(default_factory=FixedScorer)
    now_ms: int = START
    rows: dict[bytes, Profile] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    effects: Effects = field(default_factory=Effects)
    log: list[FakeRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processor = Processor(self.plan, self.scorer, campaign_only, SUBJECTS)

    def at(self, ms: int) -> Stream:
        """Set the clock to `ms` after the start."""
        self.now_ms = START + ms
        return self

    def send(self, *messages: dict[str, Any] | bytes, key: bytes | None = None, acked: int = 0) -> Effects:
        """Process messages as one batch at the present time."""
        records = [record(message, len(self.log) + n, key) for n, message in enumerate(messages)]
        self.log.extend(records)
        return self.process(records, acked=acked)

    def process(self, records: Iterable[FakeRecord], acked: int = 0) -> Effects:
        """Process records as they are, and store the rows, which must survive it."""
        effects = self.processor.process(list(records), "events", 0, self.rows, now_ms=self.now_ms, acked_offset=acked)
        return self._settle(effects)

    def fire(self, *users: str, acked: int = 0) -> Effects:
        """Run what is due."""
        keys = [user.encode() for user in users] or list(self.rows)
        return self._settle(
            self.processor.fire(keys, self.rows, now_ms=self.now_ms, mark=len(self.log), acked_offset=acked)
        )

    def run_to(self, end_ms: int) -> None:
        """Fire every timer of the default user's row when it is due, until `end_ms`."""
        while (due := self.row.due_ms()) <= end_ms:
            self.at(due - START).fire()

    def _settle(self, effects: Effects) -> Effects:
        for key, row in effects.changed.items():
            assert self.rows[key] is row
            self.rows[key] = decode_profile(encode_profile(row))
        self.outputs.extend(effects.outputs)
        self.effects = effects
        return effects

    @property
    def row(self) -> Profile:
        """The row of the default user."""
        return self.rows[USER.encode()]

    @property
    def decisions(self) -> list[Decision]:
        return [decode_decision(output.value or b"") for output in self.outputs if output.topic == DECISIONS]

    @property
    def sends(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.action == "send"]

    @property
    def reasons(self) -> list[str]:
        """Why candidates were suppressed, in order."""
        return [decision.reason for decision in self.decisions if decision.action == "suppress"]

    @property
    def changes(self) -> list[MembershipChange]:
        return [decode_membership(output.value or b"") for output in self.outputs if output.topic == SEGMENTS]

    @property
    def outcomes(self) -> list[Outcome]:
        return [decode_outcome(output.value or b"") for output in self.outputs if output.topic == OUTCOMES]

    @property
    def dead(self) -> list[str]:
        """Reasons of the dead letters."""
        return [
            dict(output.headers)["nudge_reason"].decode() for output in self.outputs if output.topic == DEAD_LETTERS
        ]
