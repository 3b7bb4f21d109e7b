"""A store whose rows are changed in memory first is, for who reads it, as one that has no memory."""

from __future__ import annotations

import random
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import pytest

from app.stream.store import FLUSH_RECORDS
from app.stream.stores import StoreFactory, StoreOptions
from app.stream.write_back import CHANCES_MAX, ENTRY_BYTES, READ_MAX, TRIM, Budget, Entry, RowMemory

KEYS = [b"user-%02d" % n for n in range(60)]
Rows = dict[bytes, bytes]


class Underway(NamedTuple):
    """A write that is expected."""

    expected: list[Entry]
    rows: dict[bytes, bytes | None]
    added: int


class Life:
    """A store and what it should hold, with its changelog, and every state that it has been in, by position."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.rng = rng
        self.path = path
        self.rows: Rows = {}
        self.underway: deque[Underway] = deque()
        self.past: dict[int, Rows] = {0: {}}
        self.log: list[tuple[int, dict[bytes, bytes | None]]] = []
        self.kills_that_cost = 0
        self.kills_ahead = 0
        self.hits = self.misses = 0
        self.open()

    def open(self) -> None:
        self.factory = StoreFactory(self.path, StoreOptions(row_bytes=12_000, dirty_bytes=3_000))
        self.store = self.factory.open("t", 0)

    def changes(self) -> tuple[dict[bytes, bytes | None], int]:
        keys = self.rng.sample(KEYS, self.rng.randint(1, 9))
        rows = {key: self.rng.choice([None, b"%d" % self.rng.getrandbits(64) * 15, b""]) for key in keys}
        newest = self.newest()
        return rows, sum((value is not None) - (key in newest) for key, value in rows.items())

    def newest(self) -> Rows:
        rows = self.rows
        for write in self.underway:
            rows = merged(rows, write.rows)
        return rows

    def expect(self) -> None:
        rows, added = self.changes()
        if self.rng.random() < 0.5:
            self.store.get_many(list(rows))
        self.underway.append(Underway(self.store.expect(rows), rows, added))

    def arrive(self) -> None:
        if not self.underway:
            return
        expected, rows, added = self.underway.popleft()
        offset = self.store.next_offset + len(rows)
        self.store.arrive(expected, rows.values(), added=added, next_offset=offset)
        self.written(rows, offset)

    def write(self) -> None:
        while self.underway:
            self.arrive()
        rows, added = self.changes()
        offset = self.store.next_offset + len(rows)
        if self.rng.random() < 0.2:
            self.store.restore(list(rows.items()), next_offset=offset)
        else:
            self.store.write(rows.items(), added=added, next_offset=offset)
        self.written(rows, offset)

    def written(self, rows: dict[bytes, bytes | None], offset: int) -> None:
        self.rows = merged(self.rows, rows)
        self.past[offset] = self.rows
        self.log.append((offset, rows))

    def read(self) -> None:
        keys, newest = self.rng.sample(KEYS, 9), self.newest()
        assert self.store.get_many(keys) == [newest.get(key) for key in keys]
        assert len(self.store) == len(self.rows)

    def page(self) -> None:
        after = self.rng.choice(KEYS)
        assert self.store.page(after, 5) == [row for row in sorted(self.rows.items()) if row[0] > after][:5]

    def prefix(self) -> None:
        found = [key for key in sorted(self.rows) if key.startswith(b"user-1")]
        assert self.store.keys_with_prefix(b"user-1") == found

    def scan(self) -> None:
        found: Rows = {}
        self.store.scan(found.update)
        assert found == self.rows

    def spill(self) -> None:
        self.store.spill()

    def spill_in_steps(self) -> None:
        for _ in self.store.spilling():
            self.read()
            if self.rng.random() < 0.3:
                self.rng.choice([self.write, self.expect, self.arrive])()

    def flush(self) -> None:
        self.store.flush()

    def kill(self) -> None:
        self.hits += self.factory.budget.hits
        self.misses += self.factory.budget.misses
        before = self.store.next_offset
        self.store._db.close()  # without a spill
        self.underway.clear()
        self.open()
        at = self.store.next_offset
        assert self.store.memory.bytes == 0
        found: Rows = {}
        self.store.scan(found.update)  # which asks whether they are as many as the store says
        later = [(offset, rows) for offset, rows in self.log if offset > at]
        for key in KEYS:
            newer = [rows[key] for _offset, rows in later if key in rows]
            assert found.get(key) in (self.past[at].get(key), *newer)
        assert self.store.reach <= before
        assert self.store.reach > at or found == self.past[at]
        self.kills_that_cost += at < before
        self.kills_ahead += found != self.past[at]
        for offset, rows in later:
            self.store.restore(list(rows.items()), next_offset=offset)
        self.scan()


def merged(rows: Rows, changes: dict[bytes, bytes | None]) -> Rows:
    return {key: value for key, value in (rows | changes).items() if value is not None}


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_a_dict_and_after_a_kill_and_a_restore_again(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path / "life", random.Random(seed))
    acts = [life.write] * 6 + [life.expect] * 8 + [life.arrive] * 8 + [life.read] * 12
    acts += [life.page, life.prefix, life.scan, life.spill, life.spill_in_steps, life.flush]
    for turn in range(300):
        life.rng.choice(acts)()
        if turn % 20 == 10:
            life.kill()
        check(life.store.memory)
    assert life.kills_that_cost, "no kill cost anything: the test is none"
    assert life.kills_ahead, "no kill found rows that are newer than their position"
    assert min(life.hits, life.misses) > 0


def check(memory: RowMemory) -> None:
    """What it says of its size holds, and nothing is here without a reason."""
    held = [entry for entry in memory._entries.values() if entry.held]
    assert memory.bytes == sum(ENTRY_BYTES + len(entry.value or b"") for entry in held)
    assert memory.dirty_bytes == sum(ENTRY_BYTES + len(entry.value or b"") for entry in memory._dirty)
    dirty = {entry.key for entry in memory._entries.values() if entry.dirty}
    assert sorted(entry.key for entry in memory._dirty) == sorted(dirty)
    assert all(entry.held or entry.expected for entry in memory._entries.values())
    assert all(entry.newest is None for entry in held if not entry.expected)


def spill(memory: RowMemory, bytes_min: int | None = None) -> None:
    rows, _growth = memory.oldest(memory.dirty_bytes if bytes_min is None else bytes_min)
    memory.spilled(len(rows))


def put(memory: RowMemory, rows: dict[bytes, bytes | None]) -> list[Entry]:
    return memory.put(memory.expect(rows), rows.values())


def test_what_is_dirty_is_bounded_and_what_was_spilled_shares_its_room() -> None:
    budget = Budget(2 * 10 * (ENTRY_BYTES + 100))
    first, second = RowMemory(budget), RowMemory(budget)
    budget.join(first)
    budget.join(second)
    put(first, {b"%d" % n: b"x" * 100 for n in range(12)})
    assert len(first) == 12, "what is dirty stays"
    spill(first, 1)
    assert sorted(first._entries) == sorted(b"%d" % n for n in range(1, 12)), "also when the rest is too much"
    spill(first)
    assert sorted(first._entries) == sorted(b"%d" % n for n in range(3, 12)), "the oldest have gone, and a little more"
    put(first, {b"3": b"y" * 100})
    spill(first)
    put(first, {b"new-%d" % n: b"x" * 100 for n in range(2)})
    spill(first)
    assert (b"3" in first._entries, b"4" in first._entries) == (True, False), "who was written again stays longer"
    budget.leave(second)
    put(first, {b"more-%d" % n: b"x" * 100 for n in range(20)})
    spill(first)
    assert len(first) == 19


def test_what_is_on_its_way_stays_in_memory_however_little_room_there_is() -> None:
    memory = RowMemory(Budget(0))
    expected = memory.expect({b"ann": b"1", b"bob": b"1"})
    put(memory, {b"ann": b"0", b"cid": b"0"})
    spill(memory)
    assert sorted(memory._entries) == [b"ann", b"bob"]
    memory.put(expected, [b"1", b"1"])
    for _ in range(2):  # who was written again is passed by once
        spill(memory)
    assert (len(memory), memory.bytes) == (0, 0)


def test_a_memory_in_which_all_were_written_again_lets_some_go_nevertheless() -> None:
    row = ENTRY_BYTES + 1
    number = 2 * CHANCES_MAX
    memory = RowMemory(Budget(number * row))
    rows = {b"%d" % n: b"x" for n in range(number)}
    for _ in range(2):
        put(memory, rows)
        spill(memory)
    put(memory, {b"new": b"x"})
    spill(memory)
    assert memory.bytes <= memory.budget.share_bytes * (TRIM - 1) // TRIM + row
    assert b"0" in memory._entries, "some are passed by"


def test_reads_that_no_write_follows_are_not_all_remembered() -> None:
    memory = RowMemory(Budget(1 << 20))
    for number in range(3):
        keys = [b"%d-%d" % (number, n) for n in range(READ_MAX)]
        memory.get_many(keys)
        memory.answered(keys, [None] * READ_MAX)
        assert len(memory._read) <= 2 * READ_MAX


def test_of_a_row_that_was_read_nobody_asks_again_whether_rocksdb_has_it() -> None:
    memory = RowMemory(Budget(1 << 20))
    memory.answered([b"ann", b"bob"], [None, b"1"])
    assert not put(memory, {b"ann": b"1", b"bob": b"2"})
    assert memory.growth == 1
    (asked,) = put(memory, {b"cid": b"1"})
    memory.not_stored(asked)
    assert memory.growth == 2


def test_a_write_of_a_row_that_was_read_and_let_go_of_since_is_seen() -> None:
    memory = RowMemory(Budget(0))
    put(memory, {b"ann": b"1"})
    memory.get_many([b"ann"])
    spill(memory)
    assert not memory._entries
    memory.expect({b"ann": b"2"})
    assert memory.get_many([b"ann"]) == ([b"2"], [])
    check(memory)


def test_of_a_row_that_is_on_its_way_the_count_holds_whatever_a_restore_does(tmp_path: Path) -> None:
    store = StoreFactory(tmp_path).open("t", 0)
    store.get_many([b"ann"])
    expected = store.expect({b"ann": b"2"})
    store.restore([(b"ann", b"1")], next_offset=1)
    assert store.get_many([b"ann"]) == [b"2"]
    store.arrive(expected, [b"2"], added=0, next_offset=2)
    assert store.memory.growth == 0, "the restore has brought it to RocksDB"
    store.spill()
    assert store.page(b"", 9) == [(b"ann", b"2")]


def test_nothing_stays_in_memory_of_a_row_that_was_deleted(tmp_path: Path) -> None:
    store = StoreFactory(tmp_path).open("t", 0)
    store.write([(b"ann", b"secret")], added=1, next_offset=1)
    store.spill()
    store.write([(b"ann", None)], added=-1, next_offset=2)
    assert store.memory._entries[b"ann"].value is None
    store.get_many([b"ann"])
    store.spill()
    assert (len(store.memory), store.memory.bytes) == (0, 0)
    assert b"ann" not in store.memory._read
    assert store.get_many([b"ann"]) == [None]


def test_a_disk_that_refuses_a_spill_is_told_and_nothing_of_it_is_forgotten(tmp_path: Path) -> None:
    store = StoreFactory(tmp_path, StoreOptions(dirty_bytes=3_000)).open("t", 0)
    store.get_many([b"ann", b"bob"])
    store._db.close()
    store.write([(b"ann", b"1")], added=1, next_offset=1)
    with pytest.raises(OSError, match=f"cannot write to {store.path}"):
        store.write([(b"bob", b"x" * 3_000)], added=1, next_offset=2)
    assert {entry.key for entry in store.memory._dirty} == {b"ann", b"bob"}
    assert store.is_dirty


def test_of_writes_of_the_same_rows_one_position_is_kept(tmp_path: Path) -> None:
    store = StoreFactory(tmp_path).open("t", 0)
    for turn in range(1, 9):
        store.write([(b"ann", b"%d" % turn)], added=turn == 1, next_offset=turn)
    assert len(store._marks) == 1
    for _ in store.spilling():
        pass
    assert (store._spilled[0], store.is_dirty) == (8, False)


def test_the_few_rows_of_busy_users_reach_the_disk_though_they_fill_no_buffer(tmp_path: Path) -> None:
    store = StoreFactory(tmp_path).open("t", 0)
    for turn in range(1, 4):
        store.write([(b"ann", b"%d" % turn)], added=turn == 1, next_offset=turn * FLUSH_RECORDS // 2)
        store.spill()
    until = time.monotonic() + 10
    while not store.disk_bytes() and time.monotonic() < until:
        time.sleep(0.01)
    assert store.disk_bytes() > 0
