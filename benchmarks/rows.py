"""Rows as a worker with the benchmark's policy writes them, for topics that are filled before any clock runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from app.core import owed
from app.core.features import open_features
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from app.learning.serving import prior_scorer
from app.policy.load import load_policy
from benchmarks.core import BATCH_RECORDS, BenchRecord
from benchmarks.workload import KeyValue, events, user_key

SAMPLE_USERS = 5_000
EVENTS_PER_USER = 20


def sample(policy: Path, users: int = SAMPLE_USERS, *, seed: int = 1) -> list[bytes]:
    """Encoded rows of users who did what the workload says in the last ten minutes; they owe nothing to any topic."""
    now_ms = time.time_ns() // 1_000_000
    processor = Processor(load_policy(policy), prior_scorer(), open_features)
    profiles: dict[bytes, Profile] = {}
    drawn = events(users * EVENTS_PER_USER, users, seed, start_ms=now_ms - 600_000)
    stream = [BenchRecord(key, value, offset) for offset, (key, value) in enumerate(drawn)]
    for start in range(0, len(stream), BATCH_RECORDS):
        batch = stream[start : start + BATCH_RECORDS]
        processor.process(batch, "events", 0, profiles, now_ms=now_ms, acked_offset=start, reload=profiles.get)
    return [_settled(encode_profile(profile)) for profile in profiles.values()]


def _settled(row: bytes) -> bytes:
    """The row before the first offset of any topic, with nothing to say."""
    profile = decode_profile(row)
    profile.offset = -1
    owed.settle(profile)
    return encode_profile(profile)


def spread(rows: list[bytes], number: int) -> Iterator[KeyValue]:
    """Users 0 … `number` - 1, each with one of the rows, in an order far from that of their keys, as events come."""
    order = range(number)
    stride = next(step for step in range(int(number * 0.618) | 1, 2 * number + 2, 2) if math.gcd(step, number) == 1)
    return ((user_key(user), rows[user % len(rows)]) for user in (place * stride % number for place in order))
