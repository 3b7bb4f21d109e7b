"""A store whose rows are changed in memory first is, for who reads it, as one that has no memory."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from app.stream.store import FLUSH_RECORDS, StoreFactory, StoreOptions
from app.stream.write_back import ENTRY_BYTES, Budget, RowMemory

KEYS = [b"user-%02d" % n for n in range(60)]
Rows = dict[bytes, bytes]


class Life:
    """A store and what it should hold, with its changelog, and every state that it has been in, by position."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.rng = rng
        self.path = path
        self.rows: Rows = {}
        self.past: dict[int, Rows] = {0: {}}
        self.log: list[tuple[int, dict[bytes, bytes | None]]] = []
        self.kills_that_cost = 0
        self.kills_ahead = 0
        self.hits = self.misses = 0
        self.open()

    def open(self) -> None:
        self.factory = StoreFactory(self.path, StoreOptions(row_bytes=12_000, dirty_bytes=3_000))
        self.store = self.factory.open("t", 0)

    def write(self) -> None:
        keys = self.rng.sample(KEYS, self.rng.randint(1, 9))
        rows = {key: self.rng.choice([None, b"%d" % self.rng.getrandbits(64) * 15, b""]) for key in keys}
        added = sum((value is not None) - (key in self.rows) for key, value in rows.items())
        offset = self.store.next_offset + len(rows)
        if self.rng.random() < 0.2:
            self.store.restore(list(rows.items()), next_offset=offset)
        else:
            self.store.write(rows.items(), added=added, next_offset=offset)
        self.rows = {key: value for key, value in (self.rows | rows).items() if value is not None}
        self.past[offset] = self.rows
        self.log.append((offset, rows))

    def read(self) -> None:
        keys = self.rng.sample(KEYS, 9)
        assert self.store.get_many(keys) == [self.rows.get(key) for key in keys]
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
                self.write()

    def flush(self) -> None:
        self.store.flush()

    def kill(self) -> None:
        self.hits += self.factory.budget.hits
        self.misses += self.factory.budget.misses
        before = self.store.next_offset
        self.store._db.close()  # without a spill
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


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_a_dict_and_after_a_kill_and_a_restore_again(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path / "life", random.Random(seed))
    acts = [life.write] * 12 + [life.read] * 12
    acts += [life.page, life.prefix, life.scan, life.spill, life.spill_in_steps, life.flush]
    for turn in range(300):
        life.rng.choice(acts)()
        if turn % 20 == 10:
            life.kill()
        memory = life.store.memory
        assert memory.bytes == sum(ENTRY_BYTES + len(value or b"") for value in memory._rows.values())
        assert memory.dirty_bytes == sum(ENTRY_BYTES + len(value or b"") for value in memory.dirty.values())
        assert list(memory._rows)[len(memory) - len(memory.dirty) :] == list(memory.dirty), "what is dirty comes last"
    assert life.kills_that_cost, "no kill cost anything: the test is none"
    assert life.kills_ahead, "no kill found rows that are newer than their position"
    assert min(life.hits, life.misses) > 0


def spill(memory: RowMemory) -> None:
    rows, _growth = memory.oldest(memory.dirty_bytes)
    memory.spilled(rows)


def test_what_is_dirty_is_bounded_and_what_was_spilled_shares_its_room() -> None:
    budget = Budget(2 * 10 * (ENTRY_BYTES + 100))
    first, second = RowMemory(budget), RowMemory(budget)
    budget.join(first)
    budget.join(second)
    first.put({b"%d" % n: b"x" * 100 for n in range(12)}.items())
    assert len(first) == 12, "what is dirty stays"
    rows, _growth = first.oldest(1)
    first.spilled(rows)
    assert list(first._rows) == [b"%d" % n for n in range(1, 12)], "also when the rest is too much"
    spill(first)
    assert list(first._rows) == [b"%d" % n for n in range(3, 12)], "the oldest have gone, and a little more"
    first.put({b"3": b"y" * 100}.items())
    spill(first)
    first.put({b"new-%d" % n: b"x" * 100 for n in range(2)}.items())
    spill(first)
    assert (b"3" in first._rows, b"4" in first._rows) == (True, False), "who was written again is the newest"
    budget.leave(second)
    first.put({b"more-%d" % n: b"x" * 100 for n in range(20)}.items())
    spill(first)
    assert len(first) == 19


def test_nothing_stays_in_memory_of_a_row_that_was_deleted(tmp_path: Path) -> None:
    store = StoreFactory(tmp_path).open("t", 0)
    store.write([(b"ann", b"secret")], added=1, next_offset=1)
    store.spill()
    store.write([(b"ann", None)], added=-1, next_offset=2)
    assert b"secret" not in store.memory._rows.values()
    store.spill()
    assert (len(store.memory), store.memory.bytes) == (0, 0)
    assert store.get_many([b"ann"]) == [None]


def test_a_disk_that_refuses_a_spill_is_told_and_nothing_of_it_is_forgotten(tmp_path: Path) -> None:
    store = StoreFactory(tmp_path, StoreOptions(dirty_bytes=3_000)).open("t", 0)
    store.get_many([b"ann", b"bob"])
    store._db.close()
    store.write([(b"ann", b"1")], added=1, next_offset=1)
    with pytest.raises(OSError, match=f"cannot write to {store.path}"):
        store.write([(b"bob", b"x" * 3_000)], added=1, next_offset=2)
    assert set(store.memory.dirty) == {b"ann", b"bob"}
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
