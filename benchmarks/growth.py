"""What a row costs to read, change and write in a store that grows. One process, `--partitions` stores, no Kafka.

    python -m benchmarks.growth --rows 100000,1000000 --json

The stores are filled as a restore fills them and given back to use; then keys are drawn uniformly, nearly every one
from another block, 256 of a store at a time: read, and written back with other first bytes. Times are processor time:
of the caller's thread, the median of chunks for reads and the mean for writes, since what is written is spilled now and
then; of RocksDB's threads, all that came of the changes; and of the fill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from app.stream.store import PartitionStore
from app.stream.stores import StoreFactory
from benchmarks import rows
from benchmarks.common import machine
from benchmarks.nudge_worker import POLICIES
from benchmarks.workload import user_key

CHUNK: Final = 256
FILL: Final = 2_000
_SETTLED_S: Final = 2.0
"""So long nothing must have been merged: the fill is over."""


def filled(factory: StoreFactory, partitions: int, number: int, sample: list[bytes]) -> list[PartitionStore]:
    """Stores with `number` rows in all, user n in store n modulo `partitions`."""
    stores = [factory.open("profiles", partition) for partition in range(partitions)]
    for store in stores:
        store.begin_bulk()
    pending: list[list[tuple[bytes, bytes]]] = [[] for _ in stores]
    for key, value in rows.spread(sample, number):
        place = int(key.rpartition(b"-")[2]) % partitions
        pending[place].append((key, value))
        if len(pending[place]) == FILL:
            stores[place].restore(pending[place], next_offset=stores[place].next_offset + FILL)
            pending[place].clear()
    for store, rest in zip(stores, pending, strict=True):
        store.restore(rest, next_offset=store.next_offset + len(rest))
        store.scan(lambda _rows: None)
        store.end_bulk()
    return stores


def settle(stores: list[PartitionStore]) -> None:
    """Return when nothing is merged any more."""
    quiet_at = time.monotonic()
    while time.monotonic() - quiet_at < _SETTLED_S:
        if any(store.merging() for store in stores):
            quiet_at = time.monotonic()
        time.sleep(0.1)


def chunks(number: int, partitions: int, count: int, seed: int) -> Iterator[tuple[int, list[bytes]]]:
    """`count` draws of keys: the store, and `CHUNK` different keys of it."""
    rng = random.Random(seed)
    for _ in range(count):
        place = rng.randrange(partitions)
        users = rng.sample(range(place, number, partitions), CHUNK)
        yield place, [user_key(user) for user in users]


def measured(stores: list[PartitionStore], number: int, changed: int, seed: int) -> dict[str, Any]:
    """Microseconds a row, in processor time of this thread, and of RocksDB's threads."""
    reads: list[float] = []
    writes: list[float] = []
    began_cpu_s, began_s = time.process_time(), time.thread_time()
    for place, keys in chunks(number, len(stores), changed // CHUNK, seed):
        store = stores[place]
        start_s = time.thread_time()
        values = store.get_many(keys)
        read_s = time.thread_time()
        changes = [(key, os.urandom(16) + value[16:]) for key, value in zip(keys, values, strict=True) if value]
        assert len(changes) == CHUNK, "a row is missing"
        write_s = time.thread_time()
        store.write(changes, added=0, next_offset=store.next_offset + CHUNK)
        writes.append(time.thread_time() - write_s)
        reads.append(read_s - start_s)
    start_s = time.thread_time()
    for store in stores:
        store.spill()
    writes.append(time.thread_time() - start_s)
    settle(stores)
    background_s = time.process_time() - began_cpu_s - (time.thread_time() - began_s)
    return {
        "read_us": _median_us(reads),
        "write_us": round(sum(writes) / (CHUNK * len(reads)) * 1e6, 2),
        "background_us": round(background_s / (CHUNK * len(reads)) * 1e6, 2),
    }


def _median_us(seconds: list[float]) -> float:
    return round(sorted(seconds)[len(seconds) // 2] / CHUNK * 1e6, 2)


def run(options: argparse.Namespace, number: int, sample: list[bytes]) -> dict[str, Any]:
    """The figures of one number of rows."""
    with tempfile.TemporaryDirectory(prefix="nudge-bench-", dir=options.data) as folder:
        began, began_cpu_s = time.monotonic(), time.process_time()
        stores = filled(StoreFactory(Path(folder)), options.partitions, number, sample)
        settle(stores)
        fill_cpu_s = time.process_time() - began_cpu_s
        found = {"rows": number, "seconds_to_fill": round(time.monotonic() - began, 1)}
        found["fill_us"] = round(fill_cpu_s / number * 1e6, 2)
        found |= measured(stores, number, options.changed, options.seed)
        found["disk_bytes_per_row"] = round(sum(store.disk_bytes() for store in stores) / number)
        found["rss_mb"] = round(psutil.Process().memory_info().rss / 2**20)
        for store in stores:
            store.close()
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", default="100000,1000000", help="numbers of rows (default: %(default)s)")
    arguments.add_argument("--changed", type=int, default=200_000, help="rows that are changed (default: %(default)s)")
    arguments.add_argument("--partitions", type=int, default=4)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument(
        "--data", type=Path, default=None, help="where the stores are (default: the temporary folder)"
    )
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    sample = rows.sample(POLICIES[20], seed=options.seed)
    found = []
    for number in map(int, options.rows.split(",")):
        found.append(run(options, number, sample))
        print(", ".join(f"{name} {value:,}" for name, value in found[-1].items()), flush=True)
    if options.json:
        print(json.dumps({"machine": machine(), "changed": options.changed, "runs": found}))


if __name__ == "__main__":
    main()
