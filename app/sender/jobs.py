"""From records of `decisions` to jobs: what is to be sent, and what could not be read. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from app.sender.providers.base import Message
from schemas.dead_letters import DeadLetter
from schemas.decisions import ERASED_TYPE, SHADOW_TYPE, SUPPRESSED_TYPE, Decision, Headers, decode_decision, token_id
from tables.ledger import LedgerEntry

_SUPPRESSED: Final = (SUPPRESSED_TYPE.encode(), ERASED_TYPE.encode(), SHADOW_TYPE.encode())
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")  # it becomes a header, a ledger key and a part of message ids
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PATH = re.compile(r"`(\$[^`]*)`$")


class Record(Protocol):
    """What is read of a Kafka record (aiokafka's `ConsumerRecord` has it). `timestamp` is wall-clock."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class Job:
    """One decision to send, and what this process knows of it.

    Parameters
    ----------
    written_ms
        Wall-clock time at which the record was written.
    entry
        The ledger's entry: None before the reservation.
    maybe_sent
        An earlier attempt, of this process or of one that died, may have been accepted.
    indexed
        The entry can be found by its user.
    reserved
        By this process.
    attempts, tries
        How often a provider was asked: in all, and for the present device.
    gone
        What a provider said is no address any more: token's id, provider, reason.
    """

    decision: Decision
    offset: int
    written_ms: int
    traceparent: bytes = b""
    entry: LedgerEntry | None = None
    maybe_sent: bool = False
    reserved: bool = False
    attempts: int = 0
    indexed: bool = False
    tries: int = 0
    gone: list[tuple[str, str, str]] = field(default_factory=list)
    device_at: int = 0

    @property
    def key(self) -> bytes:
        """The ledger's key."""
        return self.decision.id.encode()

    @property
    def device(self) -> dict[str, Any]:
        """The address to try now; empty where the user has none."""
        return self.decision.more_tokens[self.device_at - 1] if self.device_at else self.decision.token

    def next_device(self) -> bool:
        """Go on to the device that was used before this one; False when there is none."""
        if self.device_at >= len(self.decision.more_tokens):
            return False
        self.device_at += 1
        self.tries = 0
        return True

    def note_gone(self, provider: str, reason: str) -> None:
        """The present device's address is none any more."""
        token = self.device.get("token")
        if isinstance(token, str):
            self.gone.append((token_id(token), provider, reason))


def read_jobs(
    topic: str, partition: int, records: Sequence[Record], at_ms: int
) -> tuple[list[Job], list[tuple[Record, DeadLetter]]]:
    """Jobs in order of their offsets, one an id, and the records that are not decisions.

    Suppressed decisions, most of the topic, are left out by their header, without decoding them.
    """
    jobs: dict[str, Job] = {}
    refused: list[tuple[Record, DeadLetter]] = []
    for record in records:
        headers = dict(record.headers)
        if headers.get("ce_type") in _SUPPRESSED:
            continue
        found = _read(record)
        if isinstance(found, Decision):
            if found.action == "send" and not found.shadow:
                trace = headers.get("traceparent") or b""
                job = Job(found, record.offset, record.timestamp, trace if _TRACEPARENT.fullmatch(trace) else b"")
                jobs.setdefault(found.id, job)
        else:
            reason, detail = found
            letter = DeadLetter(
                topic=topic, partition=partition, offset=record.offset, reason=reason, detail=detail, at_ms=at_ms
            )
            refused.append((record, letter))
    return list(jobs.values()), refused


def _read(record: Record) -> Decision | tuple[str, str]:
    """The decision, or reason and detail of the refusal (without any of the record's contents)."""
    if not record.value:
        return "empty", "the record has no value"
    try:
        decision = decode_decision(record.value)
    except msgspec.ValidationError as exc:
        where = _PATH.search(str(exc))
        return "invalid_field", f"wrong type or value at {where[1] if where else '$'}"
    except msgspec.DecodeError:
        return "malformed_json", "the value is not JSON"
    if not _ID.fullmatch(decision.id):
        return "invalid_field", "$.id must be 1 to 128 letters, digits or . _ : -"
    if record.key != decision.user.encode():
        return "key_mismatch", "the record key is not the decision's user"
    if decision.action == "send" and decision.content is None:
        return "invalid_field", "$.content is required to send"
    return decision


def message_of(job: Job) -> Message:
    """What the provider gets."""
    decision = job.decision
    assert decision.content is not None, "checked when it was read"
    return Message(
        id=decision.id,
        user=decision.user,
        campaign=decision.campaign,
        category=decision.category,
        variant=decision.variant,
        title=decision.content.title,
        body=decision.content.body,
        deep_link=decision.content.deep_link,
        data=decision.content.data,
        token=job.device,
        transactional=decision.transactional,
        decided_ms=decision.decided_ms,
        expires_ms=decision.expires_ms,
        traceparent=job.traceparent.decode(),
    )


def trace_headers(job: Job) -> Headers:
    """Headers of the receipt: the trace goes on."""
    return [("traceparent", job.traceparent)] if job.traceparent else []
