"""Recorded events: one JSON object a line, as they stood on the topic and in that order.

    {"key": "ann", "partition": 3, "offset": 4711, "at": 1767261600000, "value": {"type": "track", …}}

`at` is when the record arrived (event-time milliseconds). A line that is a bare event is taken, too: its user is the
key, its timestamp the arrival, the line's number the offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from schemas.events import Event, Rejected, decode_event, epoch_ms


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A record of `events`, as the core reads it; `at_ms` is when it arrived, in event time."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    at_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def timestamp(self) -> int:
        """The arrival."""
        return self.at_ms


class _Line(msgspec.Struct):
    key: str
    partition: int
    offset: int
    at: int
    value: msgspec.Raw


class BadRecording(ValueError):
    """A line is no recorded event; the message says which, and why."""


_line = msgspec.json.Decoder(_Line)


def read_recording(path: Path) -> Iterator[Recorded]:
    """The records of a file, in its order. Raises `BadRecording`."""
    with path.open("rb") as lines:
        for number, text in enumerate(lines, start=1):
            if text.strip():
                yield _read_line(text, number, path)


def _read_line(text: bytes, number: int, path: Path) -> Recorded:
    try:
        line = _line.decode(text)
    except msgspec.MsgspecError as exc:
        bare = _read_bare(text, number)
        if bare is None:
            raise BadRecording(f"{path}:{number}: neither a record nor an event ({exc})") from None
        return bare
    return Recorded(line.key.encode(), bytes(line.value), line.partition, line.offset, line.at)


def _read_bare(text: bytes, number: int) -> Recorded | None:
    try:
        fields: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    key = str(fields.get("userId") or fields.get("anonymousId") or "").encode()
    event = decode_event(text, key)
    if isinstance(event, Rejected) or event.timestamp is None:
        return None
    return Recorded(key, text, 0, number, epoch_ms(event.timestamp))


def write_recording(path: Path, records: Iterable[Recorded]) -> tuple[int, int]:
    """Write records to a file.

    Returns
    -------
    tuple
        How many were written, and how many were left out because they are no events.
    """
    written = left_out = 0
    with path.open("wb") as file:
        for record in records:
            if record.key is None or not isinstance(decode_event(record.value, record.key), Event):
                left_out += 1
                continue
            value = msgspec.Raw(record.value or b"")
            line = _Line(record.key.decode(), record.partition, record.offset, record.at_ms, value)
            file.write(msgspec.json.encode(line) + b"\n")
            written += 1
    return written, left_out
