"""Where the time of a restore from nothing goes, in the one thread that has Python's lock. No broker.

    python -m benchmarks.restore_stages --json

Fetches as a broker would send them are parsed, fenced and written to a store as a restore does it, and then the store
is scanned and its rows are indexed. Times are processor time of the thread, of each piece of work the least of
`--turns`, so that a busy machine blurs little. `rows_per_second` is what the thread could do if fetching took none of
its time and it never waited: a restore cannot be faster. `rocksdb_threads_us` is what RocksDB does beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from app.stream.fence import Fence, row_headers
from app.stream.fetch import unpack
from app.stream.partition import Partition
from app.stream.store import PartitionStore
from app.stream.stores import StoreFactory
from benchmarks import rows
from benchmarks.common import machine
from benchmarks.nudge_worker import POLICIES

BATCH_RECORDS: Final = 500
FETCH_BYTES: Final = 2 << 20
STAGES: Final = ("parse", "fence", "write", "scan", "index")

Least = dict[tuple[str, int], float]


def batches(number: int, seed: int) -> Iterator[bytes]:
    """Record batches of a changelog with `number` rows."""
    builder, base, count = _builder(), 0, 0
    for place, (key, value) in enumerate(rows.spread(rows.sample(POLICIES[20], seed=seed), number)):
        builder.append(count, 1, key, value, row_headers(1))
        count += 1
        if count == BATCH_RECORDS or place == number - 1:
            yield struct.pack(">q", base) + bytes(builder.build())[8:]
            builder, base, count = _builder(), place + 1, 0


def _builder() -> Any:
    return DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, FETCH_BYTES)


def fetches(found: Iterator[bytes]) -> list[bytes]:
    """Batches as they come of one partition, `FETCH_BYTES` at a time."""
    made = [bytearray()]
    for batch in found:
        if made[-1] and len(made[-1]) + len(batch) > FETCH_BYTES:
            made.append(bytearray())
        made[-1] += batch
    return [bytes(one) for one in made]


def turn(given: Sequence[bytes], folder: Path, least: Least) -> tuple[int, float]:
    """Restore once; rows, and the processor seconds of other threads."""
    began_s = time.process_time() - time.thread_time()
    store = StoreFactory(folder).open("profiles", 0)
    store.begin_bulk()
    fence, place = Fence(1), TopicPartition("changelog", 0)
    for number, raw in enumerate(given):
        fetched = PartitionRecords(place, MemoryRecords(raw), [], 0, None, None, True, READ_UNCOMMITTED)
        marks = [time.thread_time()]
        records = unpack(fetched)
        marks.append(time.thread_time())
        admitted = fence.admit(records)
        marks.append(time.thread_time())
        store.restore(admitted, next_offset=records[-1].offset + 1, epoch=1)
        marks.append(time.thread_time())
        _note(least, ("parse", "fence", "write"), number, marks)
    store.flush()
    others_s = time.process_time() - time.thread_time() - began_s
    _scan(store, least)
    found = len(store)
    store.close()
    return found, others_s


def _scan(store: PartitionStore, least: Least) -> None:
    state = Partition(0)
    number, marks = 0, [time.thread_time()]

    def visit(page: Sequence[tuple[bytes, bytes]]) -> None:
        marks.append(time.thread_time())
        state.index(page)
        marks.append(time.thread_time())

    for _ in store.scanning(visit):
        _note(least, ("scan", "index"), number, marks)
        number, marks[:] = number + 1, [time.thread_time()]


def _note(least: Least, stages: Sequence[str], number: int, marks: Sequence[float]) -> None:
    for stage, start_s, end_s in zip(stages, marks, marks[1:], strict=False):
        least[stage, number] = min(end_s - start_s, least.get((stage, number), end_s - start_s))


def figures(least: Least, number: int) -> dict[str, Any]:
    """Microseconds a row by stage, and how many rows a second that makes."""
    by_stage = {stage: sum(s for (name, _), s in least.items() if name == stage) / number * 1e6 for stage in STAGES}
    whole = sum(by_stage.values())
    applied = by_stage["parse"] + by_stage["fence"] + by_stage["write"]
    return {
        **{f"{stage}_us": round(us, 2) for stage, us in by_stage.items()},
        "rows_per_second": round(1e6 / whole),
        "rows_per_second_applied": round(1e6 / applied),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--turns", type=int, default=9)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    given = fetches(batches(options.rows, options.seed))
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the worker's
    least: Least = {}
    others: list[float] = []
    for _ in range(options.turns):
        with tempfile.TemporaryDirectory(prefix="nudge-bench-") as folder:
            found, others_s = turn(given, Path(folder), least)
            assert found == options.rows, f"{found} rows instead of {options.rows}"
            others.append(others_s)
    result = figures(least, options.rows)
    result["rocksdb_threads_us"] = round(min(others) / options.rows * 1e6, 2)
    for name, value in result.items():
        print(f"{name:>30}  {value:,}")
    if options.json:
        print(json.dumps({**result, "rows": options.rows, "machine": machine()}))


if __name__ == "__main__":
    main()
