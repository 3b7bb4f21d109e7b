"""Minimum sizes: who is told, when; and sizes over time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry

from app.core.effects import Effects
from app.core.plan import Plan
from app.metrics import Metrics, WorkerObserver
from app.overlap.sizes import IDS_MAX, Changes
from app.policy.load import load_policy_text
from app.small_segments import SmallSegments
from schemas.segments import MembershipChange
from tests.support.plans import HOUR
from tests.support.streams import START

PLAN = load_policy_text("""
version: 1
name: shop
defaults: {segment_users_min: 100}
segments:
  - {name: a, when: orders() > 1}
  - {name: b, when: orders() > 2, minimum_size: 40}
  - {name: staff, when: sent() > 1, minimum_size: 0}
""")


class World:
    """What a worker knows, and what it said."""

    def __init__(self, log: list[dict[str, object]]) -> None:
        self.plan: Plan = PLAN
        self.sizes = {"a": 60, "b": 10}
        self.owned: tuple[int, ...] = (0, 3)
        self._log = log
        self.small = SmallSegments(
            lambda: self.plan, lambda: self.sizes, lambda: self.owned, partitions=4, settle_s=100
        )

    def told(self) -> list[tuple[object, object, object]]:
        return [
            (entry["segment"], entry["users_estimated"], entry["minimum_size"])
            for entry in self._log
            if entry["event"] == "segment_small"
        ]


@pytest.fixture
def world() -> Iterator[World]:
    with structlog.testing.capture_logs() as log:
        yield World(log)  # type: ignore[arg-type]


def test_a_segment_has_its_own_minimum_or_the_defaults() -> None:
    assert [segment.users_min for segment in PLAN.segments] == [100, 40, 0]


def test_a_segment_that_stays_too_small_is_told_once_when_it_has_had_time_to_settle(world: World) -> None:
    for now_s in (0, 99):
        world.small.look(now_s)
    assert world.told() == []
    for now_s in (100, 160, 1000):
        world.small.look(now_s)
    assert world.told() == [("b", 20, 40)]


def test_one_that_recovers_meanwhile_begins_anew(world: World) -> None:
    world.small.look(0)
    world.sizes["b"] = 20
    world.small.look(60)
    world.sizes["b"] = 10
    world.small.look(110)
    world.small.look(209)
    assert world.told() == []
    world.small.look(210)
    assert len(world.told()) == 1


@pytest.mark.parametrize("owned", [(), (1, 2)])
def test_only_the_owner_of_the_first_partition_speaks_and_none_while_partitions_move(
    world: World, owned: tuple[int, ...]
) -> None:
    world.owned = owned
    for now_s in (0, 500):
        world.small.look(now_s)
    assert world.told() == []


def test_the_minimum_is_shown_where_there_is_one_and_goes_with_the_policy() -> None:
    registry = CollectorRegistry()
    observer = WorkerObserver(Metrics(registry), PLAN)

    def minimum(segment: str) -> float | None:
        return registry.get_sample_value("nudge_segment_minimum_members", {"segment": segment})

    assert (minimum("a"), minimum("b"), minimum("staff")) == (100, 40, None)
    observer.policy(Plan(version="2"))
    assert minimum("a") is None


def test_a_worker_adds_up_its_partitions() -> None:
    observer = WorkerObserver(Metrics(CollectorRegistry()), PLAN)
    effects = Effects()
    effects.members["a"] = 2
    observer.effects(effects, partition=0)
    observer.effects(effects, partition=1)
    assert observer.sizes() == {"a": 4}


def change(at_ms: int, entered: bool, number: int, segment: str = "a") -> MembershipChange:
    return MembershipChange(
        id=f"c{number}", user="u", segment=segment, change="enter" if entered else "leave", at_ms=at_ms, cause="event"
    )


def test_sizes_over_time_equal_a_count_as_it_went() -> None:
    rng = random.Random(5)
    changes, size, truth = Changes(START + 10 * HOUR, HOUR, 10), 100, [100]
    number = 0
    for hour in range(10):
        for _ in range(rng.randrange(20)):
            entered = rng.random() < 0.5
            size += 1 if entered else -1
            one = change(START + hour * HOUR + rng.randrange(1, HOUR), entered, number)
            changes.take(one)
            if rng.random() < 0.3:
                changes.take(one)  # published again after a crash
            number += 1
        truth.append(size)
    changes.take(change(START - HOUR, True, -1))
    found = {one.segment: one.users for one in changes.history(PLAN, {"a": size})}
    assert found == {"a": truth, "b": [0] * 11, "staff": [0] * 11}


def test_the_memory_of_ids_is_bounded() -> None:
    changes = Changes(START, HOUR, 2)
    for number in range(IDS_MAX + 10):
        changes.take(change(START - 1, True, number))
    assert len(changes._ids) == IDS_MAX
