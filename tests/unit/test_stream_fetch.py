from __future__ import annotations

import gc
import random
import struct
import weakref
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from app.stream.fetch import unpack

_CRC_AT, _ATTRIBUTES_AT, _LAST_DELTA_AT = 17, 21, 23
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
ABORT = struct.pack(">hh", 0, 0)


def batch(
    base: int, offsets: list[int], *, producer: int = -1, flags: int = 0, last: int | None = None, key: bytes = b""
) -> bytes:
    """A record batch as Kafka stores it. `offsets` are those that compaction left; `last` is what was there before."""
    builder = DefaultRecordBatchBuilder(2, 0, int(bool(flags & _TRANSACTIONAL)), producer, 0, 0, 1 << 20)
    for offset in offsets:
        value = None if offset % 7 == 0 else b"v%d" % offset
        builder.append(offset - base, 1, key or b"k%d" % offset, value, [("e", b"1")] if offset % 2 else [])
    raw = bytearray(builder.build())
    raw[0:8] = struct.pack(">q", base)
    attributes = struct.unpack_from(">h", raw, _ATTRIBUTES_AT)[0] | flags
    struct.pack_into(">hi", raw, _ATTRIBUTES_AT, attributes, (offsets[-1] if last is None else last) - base)
    struct.pack_into(">I", raw, _CRC_AT, calc_crc32c(bytes(raw[_ATTRIBUTES_AT:])))
    return bytes(raw)


def fetched(raw: bytes, offset: int, aborted: Any = (), isolation: int = READ_UNCOMMITTED) -> Any:
    return PartitionRecords(
        TopicPartition("t", 0), MemoryRecords(raw), list(aborted), offset, None, None, True, isolation
    )  # fmt: skip


def both(raw: bytes, offset: int, aborted: Any = (), isolation: int = READ_UNCOMMITTED) -> list[int]:
    """The offsets that `unpack` gives; aiokafka's own reading gives the same records and the same position."""
    theirs, ours = (fetched(raw, offset, aborted, isolation) for _ in range(2))
    wanted = [(record.offset, record.key, record.value, record.headers) for record in theirs]
    given = [(record.offset, record.key, record.value, tuple(record.headers)) for record in unpack(ours)]
    assert given == wanted
    assert ours.next_fetch_offset == theirs.next_fetch_offset
    return [each[0] for each in given]


def test_a_fetch_begins_in_the_middle_of_a_batch() -> None:
    assert both(batch(0, [0, 1, 2, 3]) + batch(4, [4, 5]), 2) == [2, 3, 4, 5]


def test_offsets_and_tails_that_compaction_took_away_are_passed_over() -> None:
    raw = batch(0, [1, 4], last=9) + batch(20, [20], last=25)
    assert both(raw, 0) == [1, 4, 20]
    got = fetched(raw, 0)
    unpack(got)
    assert got.next_fetch_offset == 26


def test_control_batches_are_no_records_and_aborted_transactions_are_left_out_where_asked() -> None:
    raw = batch(0, [0, 1], producer=5, flags=_TRANSACTIONAL) + batch(2, [2], producer=6, flags=_TRANSACTIONAL)
    raw += batch(3, [3], producer=5, flags=_TRANSACTIONAL | _CONTROL, key=ABORT)
    raw += batch(4, [4], producer=5, flags=_TRANSACTIONAL)
    assert both(raw, 0) == [0, 1, 2, 4]
    assert both(raw, 0, [(5, 0)], READ_COMMITTED) == [2, 4]


def test_a_fetch_of_control_batches_alone_moves_the_position() -> None:
    raw = batch(7, [7], producer=5, flags=_TRANSACTIONAL | _CONTROL, key=ABORT)
    got = fetched(raw, 7)
    assert (unpack(got), got.next_fetch_offset) == ([], 8)


def test_a_wrong_checksum_gives_nothing_and_moves_nothing() -> None:
    damaged = bytearray(batch(0, [0, 1]) + batch(2, [2]))
    damaged[-1] ^= 1
    got = fetched(bytes(damaged), 0)
    with pytest.raises(CorruptRecordException):
        unpack(got)
    assert got.next_fetch_offset == 0


def test_what_was_read_is_freed_at_once() -> None:
    got = fetched(batch(0, [0, 1]), 0)
    gone = weakref.ref(got)
    gc.disable()
    try:
        unpack(got)
        del got
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("seed", range(30))
def test_any_log_is_read_as_aiokafka_reads_it(seed: int) -> None:
    rng = random.Random(seed)
    raw, base, aborted = b"", 0, []
    for _ in range(rng.randint(1, 12)):
        length = rng.randint(1, 9)
        kept = sorted(rng.sample(range(base, base + length), rng.randint(1, length)))
        producer = rng.choice((-1, 5, 6))
        flags = 0 if producer < 0 else _TRANSACTIONAL
        if flags and rng.random() < 0.3:
            kept, flags = kept[:1], flags | _CONTROL
        elif flags and rng.random() < 0.5:
            aborted.append((producer, base))
        raw += batch(
            base, kept, producer=producer, flags=flags, last=base + length - 1, key=ABORT if flags > 16 else b""
        )
        base += length + rng.choice((0, 0, 3))
    start = rng.randint(0, base)
    both(raw, start, aborted, rng.choice((READ_COMMITTED, READ_UNCOMMITTED)))
