"""Dead letters: what could not be processed, with the reason and the place it came from.

The original key and value travel unchanged as the record's key and value, so that a replay needs nothing else;
everything about the failure is in headers, which hold no personal data. Only what is longer than `BYTES_MAX` is cut:
the whole then stands where topic, partition and offset say, and a broker takes the dead letter whatever its limits.
"""

from __future__ import annotations

from typing import Final

import msgspec

BYTES_MAX: Final = 262_144


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Where a refused record stood and why it was refused."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    at_ms: int


def cut(part: bytes | None) -> bytes | None:
    """A key or value as a dead letter carries it: at most `BYTES_MAX` bytes."""
    return part[:BYTES_MAX] if part is not None and len(part) > BYTES_MAX else part


def dead_letter_headers(letter: DeadLetter, value: bytes | None = None) -> list[tuple[str, bytes]]:
    """The record headers that carry a `DeadLetter` about `value`; ``nudge_bytes`` is the length of one that was cut."""
    headers = [
        ("nudge_topic", letter.topic.encode()),
        ("nudge_partition", str(letter.partition).encode()),
        ("nudge_offset", str(letter.offset).encode()),
        ("nudge_reason", letter.reason.encode()),
        ("nudge_detail", letter.detail.encode()),
        ("nudge_at_ms", str(letter.at_ms).encode()),
    ]
    if value is not None and len(value) > BYTES_MAX:
        headers.append(("nudge_bytes", str(len(value)).encode()))
    return headers


def read_dead_letter(headers: list[tuple[str, bytes]]) -> DeadLetter:
    """The inverse of `dead_letter_headers`. Raises `KeyError` when a header is missing."""
    found = {name: value.decode() for name, value in headers}
    return DeadLetter(
        topic=found["nudge_topic"],
        partition=int(found["nudge_partition"]),
        offset=int(found["nudge_offset"]),
        reason=found["nudge_reason"],
        detail=found["nudge_detail"],
        at_ms=int(found["nudge_at_ms"]),
    )
