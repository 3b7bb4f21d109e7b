"""Fetched batches whose headers have names that are no UTF-8."""

from __future__ import annotations

import subprocess
import sys

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

import app.stream.transport  # noqa: F401 - installs it
from app.stream.wire import WireRecords, read_records

NAME, NO_TEXT = "tracé", b"trac\xff\xfe"
GZIP = 1


def batch(first: int, *headers: list[tuple[str, bytes | None]], codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 16,
    )
    for offset, given in enumerate(headers):
        builder.append(offset, 1_000 + offset, b"k%d" % offset, None if offset == 1 else b"v%d" % offset, given)
    raw = bytearray(builder.build())
    raw[:8] = first.to_bytes(8, "big")  # as a broker does; the checksum does not cover it
    return bytes(raw)


def damaged(raw: bytes) -> bytes:
    assert NAME.encode() in raw
    return raw.replace(NAME.encode(), NO_TEXT)


def fetched(raw: bytes) -> list[fetcher.ConsumerRecord]:
    """As aiokafka's fetcher unpacks them; the checksum is that of the sound bytes, so it is not looked at."""
    tp = TopicPartition("events", 0)
    return list(fetcher.PartitionRecords(tp, fetcher.MemoryRecords(raw), [], 0, None, None, False, 0))


@pytest.mark.parametrize(
    "module", ["app.stream.transport", "app.stream.broadcast", "app.whole_topic", "app.explain.history"]
)
def test_whoever_reads_reads_with_it(module: str) -> None:
    script = f"import {module}; from aiokafka.consumer import fetcher; print(fetcher.MemoryRecords.__name__)"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == WireRecords.__name__


def test_a_header_that_is_no_text_takes_no_record_and_no_neighbour_from_a_fetch() -> None:
    raw = damaged(batch(40, [("a", b"1")], [(NAME, b"x"), ("b", None)], []))
    with pytest.raises(UnicodeDecodeError):
        list(MemoryRecords(raw).next_batch())
    records = fetched(batch(30, [], []) + raw + batch(43, [("c", b"3")]))
    assert [record.offset for record in records] == [30, 31, 40, 41, 42, 43]
    assert [(record.key, record.value) for record in records[2:5]] == [(b"k0", b"v0"), (b"k1", None), (b"k2", b"v2")]
    assert [record.headers for record in records[2:]] == [
        (("a", b"1"),),
        (("trac\ufffd\ufffd", b"x"), ("b", None)),
        (),
        (("c", b"3"),),
    ]
    assert [record.timestamp for record in records[2:5]] == [1_000, 1_001, 1_002]


@pytest.mark.parametrize("codec", [0, GZIP])
def test_what_is_sound_is_read_the_same_either_way(codec: int) -> None:
    raw = batch(7, [("a", b"1"), (NAME, None)], [], [("b", b"")], codec=codec)
    theirs = [
        (r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers))
        for r in MemoryRecords(raw).next_batch()
    ]
    assert [tuple(record)[:6] for record in read_records(memoryview(raw))] == theirs
    assert len(fetched(raw)) == 3


def test_a_batch_that_was_cut_off_is_left_for_the_next_fetch() -> None:
    whole, part = batch(0, [], []), batch(2, [], [])[:-3]
    records = WireRecords(whole + part)
    assert records.has_next()
    assert [record.offset for record in records.next_batch()] == [0, 1]
    assert not records.has_next()
    assert records.next_batch() is None
    assert records.size_in_bytes() == len(whole) + len(part)
