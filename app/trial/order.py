"""A recording in the order of time: partitions are recorded one after the other, and percentiles, and changes of the
catalog, are about the users of all of them at one moment.

Each partition goes to a temporary file of its own first, so that memory stays bounded; within it the order stays.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import IO, Final

import msgspec

from app.trial.records import Recorded
from schemas.topics import CATALOG

_SIZE_BYTES: Final = 4
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None, str, int, int, int]).decode


def by_time(records: Iterable[Recorded]) -> Iterator[Recorded]:
    """The records of all partitions by when they arrived; of two at once, one of the catalog comes first.

    A partition's clock never goes back: a record that claims to have come before the one that stands before it came
    when that did.
    """
    with ExitStack() as stack:
        files: dict[tuple[str, int], IO[bytes]] = {}
        latest: dict[tuple[str, int], int] = {}
        for one in records:
            place = (one.topic, one.partition)
            if place not in files:
                files[place] = stack.enter_context(TemporaryFile(prefix="nudge-trial-"))
            latest[place] = at_ms = max(one.at_ms, latest.get(place, one.at_ms))
            raw = _encode((one.key, one.value, one.topic, one.partition, one.offset, at_ms))
            files[place].write(len(raw).to_bytes(_SIZE_BYTES) + raw)
        runs = [_read(files[place]) for place in sorted(files, key=lambda place: (place[0] != CATALOG, place))]
        yield from heapq.merge(*runs, key=lambda one: one.at_ms)


def _read(file: IO[bytes]) -> Iterator[Recorded]:
    file.seek(0)
    while size := file.read(_SIZE_BYTES):
        key, value, topic, partition, offset, at_ms = _decode(file.read(int.from_bytes(size)))
        yield Recorded(key, value, partition, offset, at_ms, topic=topic)
