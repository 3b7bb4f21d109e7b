from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.stream.store import StoreDamaged
from app.stream.stores import STALE_S, StoreFactory


@pytest.fixture
def factory(tmp_path: Path) -> StoreFactory:
    return StoreFactory(tmp_path)


def test_rows_and_position_survive_a_reopen(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.write([(b"a", b"1"), (b"b", b"2")], added=2, next_offset=7)
    store.close()
    again = factory.open("t", 0)
    assert again.get_many([b"b", b"missing", b"a"]) == [b"2", None, b"1"]
    assert (again.next_offset, len(again)) == (7, 2)


def test_what_was_not_flushed_is_lost_together_with_its_position(factory: StoreFactory, tmp_path: Path) -> None:
    store = factory.open("t", 0)
    store.write([(b"a", b"1")], added=1, next_offset=5)
    store.flush()
    store.write([(b"b", b"2")], added=1, next_offset=9)
    store._db.close()  # without a flush, as a kill leaves it
    again = factory.open("t", 0)
    rows = again.get_many([b"a", b"b"])
    assert (rows, again.next_offset, len(again)) in (([b"1", None], 5, 1), ([b"1", b"2"], 9, 2))


def test_deleting_a_row_lowers_the_count(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.write([(b"a", b"1"), (b"b", b"2")], added=2, next_offset=2)
    store.write([(b"a", None)], added=-1, next_offset=3)
    assert store.get_many([b"a"]) == [None]
    assert len(store) == 1


def test_restoring_counts_new_keys_once_and_honours_tombstones(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.restore([(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"), (b"c", None)], next_offset=5)
    store.restore([(b"b", None), (b"never", None)], next_offset=7)
    assert store.get_many([b"a", b"b", b"c"]) == [b"3", None, None]
    assert (len(store), store.next_offset) == (1, 7)


def test_a_scan_visits_every_row_and_not_the_metadata(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.write([(b"%03d" % n, b"v") for n in range(500)], added=500, next_offset=500)
    seen: list[bytes] = []
    store.scan(lambda rows: seen.extend(key for key, _value in rows))
    assert seen == [b"%03d" % n for n in range(500)]


def test_a_scan_that_finds_fewer_rows_than_were_written_says_so(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.write([(b"a", b"1")], added=1, next_offset=1)
    store.spill()
    store._db.delete(b"a")
    with pytest.raises(StoreDamaged, match="0 rows, but the store says 1"):
        store.scan(lambda rows: None)


@pytest.mark.parametrize("victim", ["*.sst", "CURRENT", "MANIFEST-*"])
def test_a_damaged_file_is_noticed(factory: StoreFactory, victim: str) -> None:
    store = factory.open("t", 0)
    store.write([(b"%05d" % n, b"x" * 100) for n in range(5000)], added=5000, next_offset=5000)
    store.close()
    for path in factory.path("t", 0).glob(victim):
        raw = bytearray(path.read_bytes())
        for at in range(len(raw) // 2, min(len(raw), len(raw) // 2 + 16)):
            raw[at] ^= 0xFF
        path.write_bytes(raw)
    try:
        reopened = factory.open("t", 0)
        seen: list[bytes] = []
        reopened.scan(lambda rows: seen.extend(key for key, _value in rows))
        silently_complete = len(seen) == 5000 and reopened.next_offset == 5000
        # A damaged MANIFEST may open empty: then position and count are gone too, and the changelog is read anew.
        assert silently_complete or (len(seen), reopened.next_offset, len(reopened)) == (0, 0, 0)
    except StoreDamaged:
        pass


def test_a_damaged_file_is_noticed_in_a_store_whose_rows_nobody_has_counted(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.begin_bulk()
    store.restore([(b"%05d" % n, b"x" * 100) for n in range(5000)], next_offset=5000)
    store.close()
    (path,) = (path for path in store.path.glob("*.sst") if path.stat().st_size > 100_000)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    again = factory.open("t", 0)
    assert not again.counted
    with pytest.raises(StoreDamaged):
        again.scan(lambda rows: None)


def test_a_damaged_store_is_made_anew_while_it_is_told_what_was_wrong(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.write([(b"%05d" % n, b"x" * 100) for n in range(500)], added=500, next_offset=500)
    store.spill()
    store._db.delete(b"00000")
    try:
        store.scan(lambda rows: None)
    except StoreDamaged:  # its traceback holds what the scan held
        store.close()
        factory.wipe("t", 0)
        assert len(factory.open("t", 0)) == 0


def test_what_was_flushed_takes_space_on_disk(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    assert store.disk_bytes() == 0
    store.write([(b"%03d" % n, b"v" * 100) for n in range(500)], added=500, next_offset=500)
    store.flush()
    assert store.disk_bytes() > 500


def test_what_was_read_from_files_is_in_the_block_cache(factory: StoreFactory) -> None:
    store = factory.open("rows", 0)
    store.write([(b"%d" % n, b"r" * 1_000) for n in range(500)], added=500, next_offset=500)
    store.flush()
    before = factory.cache_bytes()
    store.memory.budget._limit_bytes = 0
    store.memory._trim()
    assert len(store.get_many([b"%d" % n for n in range(500)])) == 500
    assert factory.cache_bytes() - before > 400_000


def test_a_store_that_was_given_up_long_ago_is_removed(factory: StoreFactory) -> None:
    for partition in (0, 1, 2):
        factory.open("t", partition).close()
    written_s = max(file.stat().st_mtime for file in factory.path("t", 1).iterdir())
    assert factory.drop_stale("t", {0}, written_s + STALE_S - 60) == []
    assert factory.drop_stale("t", {0}, written_s + STALE_S + 60) == [1, 2]
    assert [factory.path("t", partition).exists() for partition in (0, 1, 2)] == [True, False, False]


def test_keys_are_found_by_their_beginning(factory: StoreFactory) -> None:
    store = factory.open("t", 0)
    store.write([(key, b"") for key in (b"a", b"ab1", b"ab2", b"ac", b"\xffab")], added=5, next_offset=5)
    assert store.keys_with_prefix(b"ab") == [b"ab1", b"ab2"]
    assert store.keys_with_prefix(b"b") == []


def test_a_store_whose_disk_is_full_lets_go_of_its_files_when_it_is_given_up(factory: StoreFactory) -> None:
    """Else the next owner in this process, or a rebuild, would find them locked."""

    class Full:
        def __init__(self, db: Any) -> None:
            self.close = db.close

        def flush(self, _wait: bool = True) -> None:
            raise Exception("IO error: No space left on device")

    store = factory.open("t", 0)
    store.write([(b"a", b"1")], added=1, next_offset=5)
    store.spill()
    store._db = Full(store._db)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left") as refused:
        store.close()
    again = factory.open("t", 0)
    assert again.next_offset in (0, 5)
    assert refused.value
