"""A record batch of Kafka's format 2 as it goes to the broker, uncompressed, in place of aiokafka's builder.

A worker writes two records an event, and aiokafka makes four calls and several objects of each. (The format: Kafka
documentation, 5.3.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from librt.strings import BytesWriter

from app.core.row_parts import Output
from app.stream.checksum import crc32c

Headers = Sequence[tuple[str, bytes | None]]

_PREFIX: Final = struct.Struct(">qiibI")
"""First offset (the broker sets it), length of what follows, leader's epoch, version of the format, checksum."""
_CHECKED: Final = struct.Struct(">hiqqqhii")
"""Attributes, last offset delta, first and last timestamp, producer's id, its epoch, first sequence, records."""
HEAD_BYTES: Final = _PREFIX.size + _CHECKED.size
_LENGTH_COVERS: Final = HEAD_BYTES - 12
"""Bytes of the head that follow the length."""
_FORMAT: Final = 2
_NOBODY: Final = -1
_PIECE_BYTES: Final = 1 << 16
"""Records are gathered in a buffer that stays in the processor's cache; when it holds so much, that is laid aside."""


def varint(number: int) -> bytes:
    """Zigzag, seven bits a byte, as Protocol Buffers have it. 32 bits.

    Examples
    --------
    >>> varint(-1), varint(63), varint(64)
    (b'\\x01', b'~', b'\\x80\\x01')
    """
    left = (number << 1) ^ (number >> 31)
    found = bytearray()
    while left > 127:
        found.append(left & 127 | 128)
        left >>= 7
    found.append(left)
    return bytes(found)


_SMALL: Final[list[bytes]] = [varint(number) for number in range(4096)]
_NONE: Final = varint(-1)
_BEGINNINGS: Final[list[bytes]] = [b"\0\0" + place for place in _SMALL]
"""Of a record by its place in the batch: no attributes, the batch's own timestamp, the place."""


def _varint(number: int) -> bytes:
    return _SMALL[number] if number < len(_SMALL) else varint(number)


def encode_headers(headers: Headers) -> bytes:
    """A record's headers with their number."""
    parts = [_varint(len(headers))]
    for name, value in headers:
        raw = name.encode()
        parts += (_varint(len(raw)), raw)
        parts += (_NONE,) if value is None else (_varint(len(value)), value)
    return b"".join(parts)


NO_HEADERS: Final = encode_headers(())


class RecordBatchBuilder:
    """Records of one timestamp for one partition; aiokafka's producer takes it as a `BatchBuilder`.

    Parameters
    ----------
    timestamp_ms
        Of all its records.
    size_max
        Bytes that the batch may have.
    """

    def __init__(self, timestamp_ms: int, size_max: int) -> None:
        self._timestamp_ms = timestamp_ms
        self._size_max = size_max
        self._size = HEAD_BYTES
        self._records = 0
        self._newest = BytesWriter()
        self._pieces: list[bytes] = []
        """What stands before the newest."""
        self._closed = False
        self._sender = (_NOBODY, _NOBODY, 0)
        self._built = b""

    def add(self, key: bytes | None, value: bytes | None, headers: bytes) -> bool:
        """Add a record with `headers` from `encode_headers`; False when the batch is full. The first always fits."""
        name, content = key or b"", value or b""
        place = self._records
        begins = _BEGINNINGS[place] if place < len(_BEGINNINGS) else b"\0\0" + varint(place)
        before = _NONE if key is None else _varint(len(name))
        between = _NONE if value is None else _varint(len(content))
        size = len(begins) + len(before) + len(name) + len(between) + len(content) + len(headers)
        length = _varint(size)
        whole = self._size + len(length) + size
        if whole > self._size_max and self._records:
            return False
        self._size = whole
        self._records = place + 1
        newest = self._newest
        newest.write(length)
        newest.write(begins)
        newest.write(before)
        newest.write(name)
        newest.write(between)
        newest.write(content)
        newest.write(headers)
        if len(newest) >= _PIECE_BYTES:
            self._lay_aside()
        return True

    def _lay_aside(self) -> None:
        self._pieces.append(self._newest.getvalue())
        self._newest.truncate(0)

    # -- what aiokafka asks of a builder

    def append(self, *, key: object, value: object, timestamp: object, headers: object) -> None:
        """Nothing: a batch of ours is whole when aiokafka gets it, and a single record waits until it has left."""

    def record_count(self) -> int:
        """How many there are."""
        return self._records

    def size(self) -> int:
        """Of the batch, in bytes."""
        return self._size

    def close(self) -> None:
        """No more records follow."""
        self._closed = True

    def closed(self) -> bool:
        """Whether no more follow: then it need not linger."""
        return self._closed

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._sender = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        """The batch; at every attempt to send it the same."""
        if not self._built:
            self._lay_aside()
            self._built = self._encoded()
            self._newest, self._pieces = BytesWriter(), []
        return self._built

    def _encoded(self) -> bytes:
        at_ms, last = self._timestamp_ms, self._records - 1
        pieces = [_CHECKED.pack(0, last, at_ms, at_ms, *self._sender, self._records), *self._pieces]
        length = self._size - HEAD_BYTES + _LENGTH_COVERS
        return b"".join((_PREFIX.pack(0, length, _NOBODY, _FORMAT, crc32c(pieces)), *pieces))


def pack_rows(
    rows: Iterable[tuple[bytes, bytes | None]], headers: Headers, timestamp_ms: int, size_max: int
) -> list[RecordBatchBuilder]:
    """Rows with the same headers, in order, in as few batches as `size_max` allows."""
    same = encode_headers(headers)
    batch = RecordBatchBuilder(timestamp_ms, size_max)
    batches = [batch]
    for key, value in rows:
        if not batch.add(key, value, same):
            batch = _next(batches, timestamp_ms, size_max)
            batch.add(key, value, same)
    return _closed(batches)


def pack_outputs(outputs: Iterable[Output], timestamp_ms: int, size_max: int) -> list[RecordBatchBuilder]:
    """Outputs in order, in as few batches as `size_max` allows."""
    batch = RecordBatchBuilder(timestamp_ms, size_max)
    batches = [batch]
    for output in outputs:
        headers = encode_headers(output.headers) if output.headers else NO_HEADERS
        if not batch.add(output.key, output.value, headers):
            batch = _next(batches, timestamp_ms, size_max)
            batch.add(output.key, output.value, headers)
    return _closed(batches)


def _next(batches: list[RecordBatchBuilder], timestamp_ms: int, size_max: int) -> RecordBatchBuilder:
    """A batch after those that are full. Whether the broker takes a record that is larger is for the broker to say."""
    batches.append(RecordBatchBuilder(timestamp_ms, size_max))
    return batches[-1]


def _closed(batches: list[RecordBatchBuilder]) -> list[RecordBatchBuilder]:
    for batch in batches:
        batch.close()
    return [batch for batch in batches if batch.record_count()]
