"""The benchmarks of a store change rows that are there, and tell the stages of a restore apart."""

from __future__ import annotations

from pathlib import Path

from app.stream.stores import StoreFactory
from benchmarks import growth, restore_stages
from benchmarks.workload import user_key


def test_keys_are_drawn_of_the_store_that_has_them(tmp_path: Path) -> None:
    stores = growth.filled(StoreFactory(tmp_path), 2, 2_000, [b"a" * 100, b"b" * 100])
    assert [len(store) for store in stores] == [1_000, 1_000]
    for place, keys in growth.chunks(2_000, 2, 4, seed=1):
        assert None not in stores[place].get_many(keys)
    assert growth.measured(stores, 2_000, 2 * growth.CHUNK, seed=1)["read_us"] > 0
    assert stores[1].get_many([user_key(1)]) != [None]


def test_the_least_of_each_piece_makes_a_stage() -> None:
    least: restore_stages.Least = {}
    for marks in ([0.0, 2.0, 3.0], [10.0, 11.0, 15.0]):
        restore_stages._note(least, ("parse", "fence"), 0, marks)
    restore_stages._note(least, ("parse", "fence"), 1, [0.0, 1.0, 1.5])
    assert least == {("parse", 0): 1.0, ("fence", 0): 1.0, ("parse", 1): 1.0, ("fence", 1): 0.5}
    found = restore_stages.figures(least, 1_000_000)
    assert (found["parse_us"], found["fence_us"], found["rows_per_second"]) == (2.0, 1.5, round(1e6 / 3.5))
