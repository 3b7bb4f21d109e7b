"""Recorded events: one JSON object a line, as they stood on the topic and in that order.

    {"key": "ann", "partition": 3, "offset": 4711, "at": 1767261600000, "value": {"type": "track", …}}
    {"topic": "catalog", "at": "2026-01-01T10:00:00Z", "value": {"id": "p-4711", "price": 79.9}}

`at` is when the record arrived (event time: milliseconds, or a date and time). A line that is a bare event is taken,
too: its user is the key, its timestamp the arrival, the line's number the offset. Records of the catalog may leave out
key, partition and offset: the key is the item's id, the offset the line's number; `"value": null` takes an item away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from schemas.catalog import decode_item
from schemas.events import Event, Rejected, decode_event, epoch_ms
from schemas.topics import CATALOG, EVENTS


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A record of `events` or `catalog`, as the core reads it; `at_ms` is when it arrived, in event time."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    at_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = EVENTS

    @property
    def timestamp(self) -> int:
        """The arrival."""
        return self.at_ms


class _Line(msgspec.Struct, omit_defaults=True):
    at: int | datetime
    value: msgspec.Raw
    key: str = ""
    partition: int = 0
    offset: int = -1
    topic: str = ""


class BadRecording(ValueError):
    """A line is no recorded event; the message says which, and why."""


_line = msgspec.json.Decoder(_Line)


def read_recording(path: Path, topic: str = EVENTS) -> Iterator[Recorded]:
    """The records of a file, in its order; lines that name no topic are of `topic`. Raises `BadRecording`."""
    with path.open("rb") as lines:
        for number, text in enumerate(lines, start=1):
            if text.strip():
                yield _read_line(text, number, path, topic)


def _read_line(text: bytes, number: int, path: Path, topic: str) -> Recorded:
    what = "item" if topic == CATALOG else "event"
    try:
        line = _line.decode(text)
        if (line.topic or topic) == CATALOG:
            return _item(line, number)
        return _event(line)
    except (msgspec.MsgspecError, ValueError) as exc:
        if (bare := _read_bare(text, number)) is None:
            raise BadRecording(f"{path}:{number}: neither a record nor an {what} ({exc})") from None
        return bare


def _event(line: _Line) -> Recorded:
    if line.topic not in ("", EVENTS):
        raise ValueError(f"a record of {line.topic!r}; only {EVENTS!r} and {CATALOG!r} are read")
    if not line.key or line.offset < 0:
        raise ValueError("a record of an event has key, partition and offset")
    return Recorded(line.key.encode(), bytes(line.value), line.partition, line.offset, epoch_ms(line.at))


def _item(line: _Line, number: int) -> Recorded:
    offset = line.offset if line.offset >= 0 else number
    value = None if bytes(line.value) == b"null" else bytes(line.value)
    key = line.key.encode()
    if value is None and not key:
        raise ValueError("which item is taken away? give its id as `key`")
    if value is not None:
        key = key or _id_of(value)
        if isinstance(item := decode_item(value, key), Rejected):
            raise ValueError(f"{item.reason}: {item.detail}")
    return Recorded(key, value, line.partition, offset, epoch_ms(line.at), topic=CATALOG)


def _id_of(value: bytes) -> bytes:
    fields = msgspec.json.decode(value)
    return str(fields.get("id", "")).encode() if isinstance(fields, dict) else b""


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
        How many were written, and how many were left out because they are neither events nor items.
    """
    written = left_out = 0
    with path.open("wb") as file:
        for record in records:
            if not _is_good(record):
                left_out += 1
                continue
            line = _Line(
                at=record.at_ms,
                value=msgspec.Raw(b"null" if record.value is None else record.value),
                key=(record.key or b"").decode(),
                partition=record.partition,
                offset=record.offset,
                topic="" if record.topic == EVENTS else record.topic,
            )
            file.write(msgspec.json.encode(line) + b"\n")
            written += 1
    return written, left_out


def _is_good(record: Recorded) -> bool:
    if record.topic == CATALOG:
        if record.value is None:
            return bool(record.key)
        return not isinstance(decode_item(record.value, record.key), Rejected)
    return record.key is not None and isinstance(decode_event(record.value, record.key), Event)
