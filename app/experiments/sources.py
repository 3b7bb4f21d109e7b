"""Where recorded decisions, events and outcomes come from: the topics themselves, or a file of JSON lines.

A line names its topic and holds the record's JSON, as an object (`value`) or as text (`payload`, as `kcat -J` writes
it); `key` is the user. Other topics' lines are skipped, so one file may hold a dump of everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from app.demo.reader import TopicReader

IDLE_S_MAX: Final = 30.0
"""A topic that gives nothing for so long, and is not at its end, is given up."""


class BadDump(ValueError):
    """A line that is no record; the message names file and line."""


class Recorded(NamedTuple):
    """One record of a topic: the key as text, the JSON value, and its Kafka timestamp (ms; 0 when unknown)."""

    topic: str
    key: str
    value: bytes
    timestamp_ms: int


class _Line(msgspec.Struct):
    topic: str
    key: str = ""
    value: msgspec.Raw = msgspec.Raw(b"")
    payload: str | None = None
    ts: int = 0


def read_lines(path: Path, topics: Sequence[str]) -> Iterator[Recorded]:
    """The records of these topics in a file. Raises `BadDump`."""
    decode = msgspec.json.Decoder(_Line).decode
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = decode(line)
            except msgspec.MsgspecError as exc:
                raise BadDump(f"{path}:{number}: {exc}") from exc
            if found.topic not in topics:
                continue
            value = found.payload.encode() if found.payload is not None else bytes(found.value)
            yield Recorded(found.topic, found.key, value, found.ts)


def read_topics(client_settings: Mapping[str, Any], topics: Sequence[str]) -> Iterator[Recorded]:
    """All records that the topics hold now.

    Raises
    ------
    TimeoutError
        When a topic stops giving records before its end.
    """
    return iter(asyncio.run(_read_topics(client_settings, topics)))


async def _read_topics(client_settings: Mapping[str, Any], topics: Sequence[str]) -> list[Recorded]:
    security = dict(client_settings)
    bootstrap = security.pop("bootstrap_servers")
    found: list[Recorded] = []
    async with TopicReader(bootstrap, topics, **security) as reader:
        idle_s = 0.0
        while True:
            records = await reader.read(wait_ms=500)
            found += map(_recorded, records)
            if not records and await reader.at_end():
                return found
            idle_s = 0.0 if records else idle_s + 0.5
            if idle_s > IDLE_S_MAX:
                raise TimeoutError(f"{', '.join(topics)}: no end within {IDLE_S_MAX:.0f} s of silence")


def _recorded(record: Any) -> Recorded:
    key = (record.key or b"").decode("utf-8", "replace")
    return Recorded(record.topic, key, record.value or b"", record.timestamp)
