"""Records that a reader refuses: kept, with the reason, before the reader goes on."""

from __future__ import annotations

from typing import Any

from app.stream.producer import DurableProducer
from schemas.dead_letters import DeadLetter, cut, dead_letter_headers
from schemas.events import Rejected
from schemas.topics import DEAD_LETTERS


async def bury(
    producer: DurableProducer, topic: str, partition: int, record: Any, refused: Rejected, at_ms: int
) -> None:
    """Make a record a dead letter; returns when that is acknowledged."""
    letter = DeadLetter(
        topic=topic,
        partition=partition,
        offset=record.offset,
        reason=refused.reason,
        detail=refused.detail,
        at_ms=at_ms,
    )
    headers = dead_letter_headers(letter, record.value)
    await producer.send(DEAD_LETTERS, cut(record.key), cut(record.value), headers)
