"""Fetched batches, read even where the name of a header is no UTF-8.

Kafka calls such a name a string and checks nothing, so a producer in another language can send any bytes. aiokafka
raises over it, in the middle of a fetch: the same record would stop its partition's worker after every restart. Here
what is no UTF-8 in a header's name is replaced, and the record is read as any other; nobody asks for such a header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from app.stream.checksum import crc32c_of

_LENGTH_AT: Final = 8
_HEAD_BYTES: Final = 12
_MAGIC_AT: Final = 16
_LENGTH: Final = struct.Struct(">i")
_CHECKSUM_AT: Final = 17
_CHECKED_FROM: Final = 21
_CHECKSUM: Final = struct.Struct(">I")
_WITH_HEADERS: Final = 2
"""The first version of the format that has headers."""


class WireRecord(NamedTuple):
    """A record as aiokafka's fetcher takes it."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class WireBatch:
    """aiokafka's batch; iterating it never raises over a header's name."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def validate_crc(self) -> bool:
        """Whether the bytes are those that the producer sent."""
        raw = self._raw
        checked: int = _CHECKSUM.unpack_from(raw, _CHECKSUM_AT)[0]
        return checked == crc32c_of(raw[_CHECKED_FROM:])

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(read_records(self._raw))


class WireRecords:
    """The batches of one partition in a fetch, in place of aiokafka's `MemoryRecords`."""

    def __init__(self, raw: bytes) -> None:
        self._records = MemoryRecords(raw)
        self._raw = memoryview(raw)
        self._at = 0

    def size_in_bytes(self) -> int:
        """Of all batches, and of one that was cut off."""
        size: int = self._records.size_in_bytes()
        return size

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        more: bool = self._records.has_next()
        return more

    def next_batch(self) -> Any:
        """The next batch; None after the last. Raises `CorruptRecordException`."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin, raw = self._at, self._raw
        self._at = begin + _HEAD_BYTES + _LENGTH.unpack_from(raw, begin + _LENGTH_AT)[0]
        if raw[begin + _MAGIC_AT] < _WITH_HEADERS:
            return batch
        return WireBatch(batch, raw[begin : self._at])


def read_records(raw: memoryview) -> list[WireRecord]:
    """All records of a batch, whatever bytes name their headers.

    Raises
    ------
    aiokafka.errors.CorruptRecordException
        When it cannot be unpacked; `IndexError` when it ends too early.
    """
    batch = _DefaultRecordBatchPy(raw)
    batch._maybe_uncompress()
    records, at = [], batch._pos
    for _ in range(batch._num_records):
        record, at = _read_record(batch, batch._buffer, at)
        records.append(record)
    return records


def _read_record(batch: Any, buffer: bytearray, at: int) -> tuple[WireRecord, int]:
    _length, at = decode_varint(buffer, at)
    _attributes, at = decode_varint(buffer, at)
    later_ms, at = decode_varint(buffer, at)
    further, at = decode_varint(buffer, at)
    timestamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + later_ms
    key, at = _read_bytes(buffer, at)
    value, at = _read_bytes(buffer, at)
    count, at = decode_varint(buffer, at)
    headers = []
    for _ in range(count):
        name, at = _read_bytes(buffer, at)
        content, at = _read_bytes(buffer, at)
        headers.append(((name or b"").decode(errors="replace"), content))
    return WireRecord(batch.base_offset + further, timestamp, batch.timestamp_type, key, value, headers), at


def _read_bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(buffer, at)
    return (None, at) if size < 0 else (bytes(buffer[at : at + size]), at + size)


def install() -> None:
    """Have every consumer of this process read so."""
    fetcher.MemoryRecords = WireRecords
