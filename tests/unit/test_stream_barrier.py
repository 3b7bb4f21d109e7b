from __future__ import annotations

import asyncio
import random

import pytest

from app.stream.barrier import Barrier

TP = ("events", 0)


def test_nothing_is_committable_before_a_batch_completes() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    assert barrier.committable(TP) is None


def test_a_batch_completed_out_of_order_waits_for_the_one_before_it() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    barrier.begin(TP, 25, generation=1)
    barrier.complete(TP, 25, generation=1)
    assert barrier.committable(TP) is None
    barrier.complete(TP, 10, generation=1)
    assert barrier.committable(TP) == 25


def test_offset_gaps_left_by_compaction_do_not_matter() -> None:
    barrier = Barrier()
    for end in (7, 1000, 1001, 90_000):
        barrier.begin(TP, end, generation=1)
        barrier.complete(TP, end, generation=1)
    assert barrier.committable(TP) == 90_000


def test_a_batch_of_an_older_generation_completes_without_effect() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    barrier.forget(TP)
    barrier.begin(TP, 5, generation=2)
    barrier.complete(TP, 10, generation=1)
    assert barrier.committable(TP) is None
    assert barrier.inflight == 1


def test_beginning_a_batch_out_of_order_is_a_defect() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    with pytest.raises(AssertionError, match="begun after"):
        barrier.begin(TP, 10, generation=1)


async def test_draining_waits_for_batches_and_for_held_work() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    barrier.hold()
    drained = asyncio.create_task(barrier.drained(5.0))
    barrier.complete(TP, 10, generation=1)
    await asyncio.sleep(0)
    assert not drained.done()
    barrier.release()
    assert await drained


async def test_draining_gives_up_after_its_time() -> None:
    barrier = Barrier()
    barrier.hold()
    assert not await barrier.drained(0.01)


async def test_forgetting_a_revoked_partition_lets_the_drain_end() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    barrier.forget(TP)
    assert await barrier.drained(1.0)


@pytest.mark.parametrize("seed", range(50))
def test_the_committable_offset_is_always_the_end_of_the_unbroken_run(seed: int) -> None:
    rng = random.Random(seed)
    barrier, begun, done, end = Barrier(), [], set(), 0
    for _ in range(200):
        if not begun or rng.random() < 0.5:
            end += rng.randint(1, 500)
            begun.append(end)
            barrier.begin(TP, end, generation=1)
        elif open_ := [e for e in begun if e not in done]:
            completed = rng.choice(open_)
            done.add(completed)
            barrier.complete(TP, completed, generation=1)
        expected = None
        for e in begun:
            if e not in done:
                break
            expected = e
        assert barrier.committable(TP) == expected
        # A batch completed behind an incomplete one still counts as in flight: it cannot be committed yet.
        assert barrier.inflight == len([e for e in begun if expected is None or e > expected])


def test_what_follows_a_batch_that_was_given_back_is_not_committed() -> None:
    barrier = Barrier()
    for end in (10, 20, 30):
        barrier.begin(TP, end, generation=1)
    barrier.complete(TP, 30, generation=1)
    barrier.give_back(TP, 20, generation=1)
    assert barrier.inflight == 3
    barrier.complete(TP, 10, generation=1)
    assert (barrier.committable(TP), barrier.inflight) == (10, 0)


async def test_batches_that_were_given_back_are_not_waited_for() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    barrier.give_back(TP, 10, generation=1)
    assert await barrier.drained(0.1)
    assert barrier.committable(TP) is None


def test_the_next_generation_commits_again() -> None:
    barrier = Barrier()
    barrier.begin(TP, 10, generation=1)
    barrier.give_back(TP, 10, generation=1)
    barrier.begin(TP, 10, generation=2)
    barrier.complete(TP, 10, generation=2)
    assert barrier.committable(TP) == 10
