"""What a user costs: bytes on disk, bytes of memory, and the speed of a restore. One thread, one store, no Kafka.

    python -m benchmarks.state --json

Rows are those of `benchmarks.core` (20 segments, four campaigns) after `--events` events of `--users` users; each is
stored under several keys until there are `--rows`. A restore is what a worker does with a changelog: apply it in bulk,
then scan every row. Reading from the broker is not in it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any, Final

from app.core.features import open_features
from app.core.processor import Processor
from app.core.profile import Profile, encode_profile
from app.core.row_heads import peek
from app.stream.store import PartitionStore
from app.stream.stores import StoreFactory
from app.stream.timers import TimerIndex
from benchmarks.common import machine
from benchmarks.core import BATCH_RECORDS, SPAN_MS, START_MS, ConstantScorer, make_plan, records

CHUNK: Final = 2_000
READ_KEYS: Final = 512
SEGMENTS: Final = 20

Rows = list[tuple[bytes, bytes]]


def folded(users: int, events: int, seed: int) -> Rows:
    """Encoded rows of users who did all this."""
    processor = Processor(make_plan(SEGMENTS), ConstantScorer(), open_features)
    profiles: dict[bytes, Profile] = {}
    stream = list(records(events, users, seed))
    for start in range(0, events, BATCH_RECORDS):
        batch = stream[start : start + BATCH_RECORDS]
        now_ms = START_MS + SPAN_MS * (start + len(batch)) // events
        processor.process(batch, "events", 0, profiles, now_ms=now_ms, acked_offset=start, reload=profiles.get)
    return [(key, encode_profile(profile)) for key, profile in profiles.items()]


def spread(rows: Rows, number: int) -> Rows:
    """`number` rows: the given ones under further keys, in an order that is not that of the keys."""
    found = [(b"%06d-%s" % (at // len(rows), rows[at % len(rows)][0]), rows[at % len(rows)][1]) for at in range(number)]
    random.Random(1).shuffle(found)
    return found


def restored(store: PartitionStore, rows: Rows) -> float:
    """Seconds to apply the rows as a changelog."""
    began = time.perf_counter()
    for start in range(0, len(rows), CHUNK):
        store.restore(rows[start : start + CHUNK], next_offset=start + CHUNK)
    return time.perf_counter() - began


def indexed(due: list[tuple[int, bytes]]) -> tuple[int, float]:
    """Entries of the timer index of these rows, and bytes of memory each, its key included."""
    gc.collect()
    tracemalloc.start()
    index = TimerIndex()
    for at_ms, key in due:
        index.add(at_ms, bytes(bytearray(key)))
    traced, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return len(index), traced / max(1, len(index))


def measured(rows: Rows, directory: Path) -> dict[str, Any]:
    """Figures of one store with these rows."""
    factory = StoreFactory(directory)
    store = factory.open("profiles", 0)
    restore_s = restored(store, rows)
    store.close()
    store = factory.open("profiles", 0)
    due: list[tuple[int, bytes]] = []
    began = time.perf_counter()
    store.scan(lambda rows: due.extend((peek(value).due_ms, key) for key, value in rows))
    scan_s = time.perf_counter() - began
    keys = [key for key, _ in rows]
    rng = random.Random(2)
    began = time.perf_counter()
    for _ in range(40):
        store.get_many(rng.sample(keys, READ_KEYS))
    read_s = time.perf_counter() - began
    on_disk = store.disk_bytes()
    store.close()
    number = len(rows)
    entries, entry_bytes = indexed(due)
    return {
        "rows": number,
        "changelog_bytes_per_row": round(sum(len(key) + len(value) for key, value in rows) / number),
        "disk_bytes_per_row": round(on_disk / number),
        "memory_bytes_per_timer_entry": round(entry_bytes),
        "timer_entries": entries,
        "restore_rows_per_second": round(number / restore_s),
        "scan_rows_per_second": round(number / scan_s),
        "random_reads_per_second": round(40 * READ_KEYS / read_s),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--users", type=int, default=20_000)
    arguments.add_argument("--events", type=int, default=400_000)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    rows = spread(folded(options.users, options.events, options.seed), options.rows)
    with tempfile.TemporaryDirectory() as directory:
        result = measured(rows, Path(directory))
    for name, value in result.items():
        print(f"{name:>30}  {value:,}")
    if options.json:
        workload = {"users": options.users, "events": options.events, "seed": options.seed}
        print(json.dumps({"machine": machine(), "workload": workload, **result}))


if __name__ == "__main__":
    main()
