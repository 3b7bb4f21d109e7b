"""Record batches as they go to the broker, beside aiokafka's."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from app.core.row_parts import Output
from app.stream import checksum
from app.stream.record_batch import HEAD_BYTES, RecordBatchBuilder, encode_headers, pack_outputs, pack_rows

AT_MS = 1_790_000_000_000
LIMIT = 1 << 20
PRODUCER = (7_000_000_000, 3, 41)
HEADERS: list[list[tuple[str, bytes | None]]] = [
    [],
    [("e", b"12345678")],
    [("tracé", None), ("", b"")],
    [("x", b"v" * 70)],
]


def records(count: int, seed: int) -> list[tuple[bytes | None, bytes | None, list[Any]]]:
    rng = random.Random(seed)
    sizes = (0, 1, 62, 63, 64, 65, 700, 4_095, 4_096, 8_191, 8_192, 9_000)

    def some() -> bytes | None:
        return rng.choice((None, rng.randbytes(rng.choice(sizes)), rng.randbytes(20)))

    return [(some(), some(), rng.choice(HEADERS)) for _ in range(count)]


def theirs(some: list[tuple[bytes | None, bytes | None, list[Any]]], limit: int = LIMIT) -> BatchBuilder:
    builder = BatchBuilder(limit, 0)
    for key, value, headers in some:
        builder.append(key=key, value=value, timestamp=AT_MS, headers=headers)
    return builder


def ours(some: list[tuple[bytes | None, bytes | None, list[Any]]], limit: int = LIMIT) -> RecordBatchBuilder:
    builder = RecordBatchBuilder(AT_MS, limit)
    for key, value, headers in some:
        builder.add(key, value, encode_headers(headers))
    return builder


@pytest.mark.parametrize("count", [1, 2, 33, 200])
def test_a_batch_is_byte_for_byte_aiokafkas(count: int) -> None:
    some = records(count, seed=count)
    a, b = theirs(some), ours(some)
    a._set_producer_state(*PRODUCER)
    b._set_producer_state(*PRODUCER)
    assert b.size() == a.size()
    assert b._build() == bytes(a._build())
    assert len(b._build()) == b.size(), "a second attempt sends the same"


def test_places_beyond_the_table_of_small_numbers_are_right() -> None:
    raw = ours([(b"k%d" % n, b"v", []) for n in range(9_000)])._build()
    batch = MemoryRecords(raw).next_batch()
    assert batch.validate_crc()
    assert [(r.offset, r.key) for r in batch] == [(n, b"k%d" % n) for n in range(9_000)]


def test_a_batch_is_full_when_aiokafkas_is() -> None:
    some = records(400, seed=5)
    for limit in (HEAD_BYTES + 1, 4_000, 40_000):
        a, b = BatchBuilder(limit, 0), RecordBatchBuilder(AT_MS, limit)
        for key, value, headers in some:
            taken = b.add(key, value, encode_headers(headers))
            assert taken == (a.append(key=key, value=value, timestamp=AT_MS, headers=headers) is not None)
            if not taken:
                break
        assert b.record_count() == a.record_count() < len(some)


def test_rows_follow_each_other_over_as_many_batches_as_it_takes() -> None:
    rows = [(b"user-%d" % n, None if n % 7 == 0 else bytes(n * 40)) for n in range(100)]
    batches = pack_rows(rows, [("e", b"1")], AT_MS, 10_000)
    assert len(batches) > 5
    assert all(batch.closed() for batch in batches), "none waits for more"
    read = [r for batch in batches for r in MemoryRecords(batch._build()).next_batch()]
    assert [(r.key, r.value) for r in read] == rows
    assert all(list(r.headers) == [("e", b"1")] for r in read)
    assert sum(batch.record_count() for batch in batches) == len(rows)


def test_a_row_larger_than_a_batch_goes_alone_and_no_rows_make_no_batch() -> None:
    batches = pack_rows([(b"a", b"1"), (b"b", bytes(5_000)), (b"c", b"3")], [], AT_MS, 1_000)
    assert [batch.record_count() for batch in batches] == [1, 1, 1]
    assert pack_rows([], [], AT_MS, 1_000) == []


def test_outputs_keep_their_own_headers() -> None:
    outputs = [Output("t", b"k%d" % n, b"v" * n, [("ce_id", b"%d" % n)] if n % 2 else []) for n in range(50)]
    (batch,) = pack_outputs(outputs, AT_MS, LIMIT)
    read = list(MemoryRecords(batch._build()).next_batch())
    assert [(r.key, r.value, list(r.headers)) for r in read] == [(o.key, o.value, o.headers) for o in outputs]
    assert {r.timestamp for r in read} == {AT_MS}


def test_a_single_record_does_not_join_a_batch_that_waits() -> None:
    (batch,) = pack_rows([(b"a", b"1")], [], AT_MS, LIMIT)
    assert batch.append(key=b"claim", value=None, timestamp=None, headers=[]) is None
    assert batch.record_count() == 1


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_the_checksum_is_kafkas_whoever_reckons_it(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum.google_crc32c, "implementation", implementation)
    raw = random.Random(1).randbytes(3 * checksum.PIECE_BYTES + 17)
    assert checksum.crc32c([raw[:5], b"", raw[5:]]) == calc_crc32c(raw)
    assert checksum.crc32c_of(memoryview(raw)[3:-2]) == calc_crc32c(raw[3:-2])
