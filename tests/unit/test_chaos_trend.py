from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.trend import Look, Trend, figures, trend


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


def test_a_short_life_is_all_warming_up() -> None:
    assert not life(8, rss_mb=lambda at: 100.0 + 10 * at).leaks


def test_processes_that_leak_are_counted() -> None:
    trends = {"a": life(30, rss_mb=lambda at: 100.0 + at), "b": life(30)}
    assert figures(trends)["leaks"] == 1
