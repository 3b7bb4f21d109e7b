from __future__ import annotations

import math
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.trend import Look, Trend, figures, look_at, trend


def life(
    minutes: int,
    rss_mb: Callable[[int], float] = lambda _: 100.0,
    threads: Callable[[int], int] = lambda _: 5,
    handles: Callable[[int], int] = lambda _: 20,
) -> Trend:
    """A process that was looked at once a minute."""
    looks = [Look(60.0 * at, rss_mb(at), threads(at), handles(at)) for at in range(minutes + 1)]
    return trend(looks)


def test_a_process_that_warms_up_and_then_stays_does_not_leak() -> None:
    found = life(30, rss_mb=lambda at: 60.0 + min(at, 9) * 8 + at % 2)
    assert not found.leaks
    assert abs(found.mb_per_hour) < 3


def test_memory_that_grows_all_along_is_a_leak_and_its_slope_is_told() -> None:
    found = life(30, rss_mb=lambda at: 100.0 + at)
    assert found.leaks
    assert (found.mb_per_hour, found.minutes) == (60.0, 30.0)


@pytest.mark.parametrize("what", ["threads", "handles"])
def test_threads_and_files_that_pile_up_are_a_leak(what: str) -> None:
    assert life(30, **{what: lambda at: 20 + at}).leaks
    assert not life(30, **{what: lambda at: 20 + at % 3}).leaks


def test_what_the_stores_hold_is_no_leak() -> None:
    looks = [Look(60.0 * at, 100.0 + at, 5, 20, store_mb=float(at)) for at in range(31)]
    assert (trend(looks).leaks, trend(looks).grown_mb, trend(looks).mb_per_hour) == (False, 0.0, 0.0)


def telling(
    rss_mb: Callable[[int], float] = lambda _: 130.0,
    blocks: Callable[[int], float] = lambda at: 500_000.0 + at % 3 * 1_000,
    native_mb: Callable[[int], float] = lambda at: 25.0 + at % 2,
    store_mb: float = 5.0,
) -> Trend:
    """A process of half an hour that says what of its memory is in use."""
    return trend([Look(60.0 * at, rss_mb(at), 5, 20, store_mb, blocks(at), native_mb(at)) for at in range(31)])


def test_what_a_peak_has_left_free_is_no_leak() -> None:
    after_a_peak = telling(rss_mb=lambda at: 130.0 + 10 * (at > 15))
    assert (after_a_peak.grown_mb, after_a_peak.more_blocks, after_a_peak.leaks) == (10.0, 0.0, False)
    assert life(30, rss_mb=lambda at: 130.0 + 10 * (at > 15)).leaks, "nobody says that it is free"
    assert telling(rss_mb=lambda at: 130.0 + 20 * (at > 15)).leaks, "so much is too much, free or not"


def test_what_is_in_use_and_grows_is_a_leak_though_less_is_resident_than_before() -> None:
    assert telling(rss_mb=lambda at: 140.0 - at, blocks=lambda at: 500_000.0 + 6_000 * at).leaks
    assert telling(rss_mb=lambda at: 140.0 - at, native_mb=lambda at: 25.0 + at).leaks


def test_a_look_takes_what_the_process_tells() -> None:
    told = {
        "nudge_state_memory_bytes": 3.0 * 2**20, "nudge_row_memory_bytes": 2.0 * 2**20, "nudge_python_blocks": 7.0,
        "nudge_native_memory_bytes": 9.0 * 2**20,
    }  # fmt: skip
    ourselves: Any = SimpleNamespace(pid=os.getpid())
    look = look_at(ourselves, 1.0, told)
    assert look is not None
    assert (look.store_mb, look.blocks, look.native_mb, look.own_native_mb) == (5.0, 7.0, 9.0, 4.0)
    silent = look_at(ourselves, 1.0, {"nudge_native_memory_bytes": math.nan})
    assert silent is not None
    assert (silent.blocks, silent.own_native_mb) == (0.0, 0.0)


def test_a_short_life_is_all_warming_up() -> None:
    assert not life(8, rss_mb=lambda at: 100.0 + 10 * at).leaks


def test_processes_that_leak_are_counted() -> None:
    trends = {"a": life(30, rss_mb=lambda at: 100.0 + at), "b": life(30)}
    assert figures(trends)["leaks"] == 1
