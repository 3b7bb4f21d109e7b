"""A benchmark is only as good as its workload: valid, reproducible and of the size it says."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from benchmarks.common import BenchmarkFailed, ProcessSampler, Result, run_contender
from benchmarks.floor import PANE_MS, PANES, fold
from benchmarks.workload import events, user_key
from schemas.events import Event, decode_event

START_MS = 1_488_648_000_000


def decoded(count: int, users: int, seed: int) -> list[Event]:
    found = [decode_event(value, key) for key, value in events(count, users, seed, start_ms=START_MS, span_ms=1_000)]
    valid = [event for event in found if isinstance(event, Event)]
    assert len(valid) == len(found) == count
    return valid


def test_every_event_is_valid_and_has_an_id_of_its_own() -> None:
    assert len({event.message_id for event in decoded(2_000, 50, seed=1)}) == 2_000


def test_the_seed_decides_the_events() -> None:
    assert decoded(200, 50, seed=1) == decoded(200, 50, seed=1)
    assert decoded(200, 50, seed=1) != decoded(200, 50, seed=2)


def test_users_and_times_stay_in_their_bounds() -> None:
    found = decoded(2_000, 50, seed=1)
    assert len({event.user_id for event in found}) == 50
    times = [event.timestamp for event in found if isinstance(event.timestamp, int)]
    assert times == sorted(times)
    assert START_MS == times[0] < times[-1] < START_MS + 1_000


def test_the_floor_counts_what_is_in_the_window() -> None:
    rows: dict[bytes, dict[int, int]] = {}
    for pane in (0, 0, 1, 2, 3):
        fold(rows, Event(type="track", timestamp=pane * PANE_MS), b"u")
    # pane 0 left the window of three when pane 3 began
    assert rows == {b"u": {1: 1, 2: 1, 3: 1}}
    assert len(rows[b"u"]) == PANES


def test_throughput_is_events_by_seconds() -> None:
    result = Result("it", events=300, users=3, seconds=1.5, rss_mb_max=1.0, cpu_s=1.0)
    assert result.events_per_second == 200
    assert result.as_json()["events_per_second"] == 200


def test_the_sampler_sees_memory_and_processor_time() -> None:
    with ProcessSampler(os.getpid()) as sampler:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    assert sampler.rss_mb_max > 1
    assert sampler.cpu_s > 0


def test_a_contender_that_dies_is_a_failure_with_its_last_words() -> None:
    with pytest.raises(BenchmarkFailed, match="unrecognized arguments: --nonsense"):
        run_contender("it", "benchmarks.floor", ["--nonsense"], events=1, users=1, timeout_s=30)


def test_zipf_users_are_skewed_as_one_over_their_rank() -> None:
    seen = Counter(key for key, _ in events(20_000, 1_000, 1, start_ms=START_MS, keys="zipf"))
    first, second = seen[user_key(0)], seen[user_key(1)]
    assert 1.7 < first / second < 2.3
    assert first > 20 * 20_000 / 1_000, "the first user has far more than an equal share"
