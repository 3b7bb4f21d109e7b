"""Forgetting a user in the sender: what is under way ends, what waits is not sent, and the ledger keeps a mark."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.sender.delivery import Deliverer
from app.sender.erasure import read_erasures
from schemas.erasures import decode_receipt
from schemas.topics import DAY_MS, ERASURES, EVENTS
from tables.ledger import (
    MARK_RETENTION_MS,
    LedgerEntry,
    State,
    decode_entry,
    encode_entry,
    index_prefix,
    index_row,
    mark_key,
    sweep,
)
from tests.support.sender import SUBJECTS, FakeBatch, World, decision, erasure, record

SUBJECT = SUBJECTS.of(b"u0")


def receipts(world: World) -> list[tuple[str, dict[str, int]]]:
    found = [decode_receipt(value or b"") for topic, _, _, value, _ in world.produced if topic == ERASURES]
    return [(receipt.request, receipt.erased) for receipt in found]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come to that")


async def finished(task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(task, 10)


async def test_entries_of_the_user_go_and_those_of_others_stay() -> None:
    world = World()
    mine = [decision(0, id=f"mine-{n}") for n in range(5)]
    await world.run([FakeBatch([*(record(n, made) for n, made in enumerate(mine)), record(5, decision(1))])])
    assert await world.run([FakeBatch([erasure(6)])])
    assert not [key for key in world.rows if b"mine" in key]
    assert set(world.rows) == {
        mark_key(SUBJECT),
        decision(1).id.encode(),
        index_row(SUBJECTS.of(b"u1"), decision(1).id.encode(), 0)[0],
    }
    assert receipts(world) == [("r1", {"ledger_entries": 5})]


async def test_decisions_before_the_request_in_its_own_batch_are_not_sent_and_later_ones_are() -> None:
    world = World()
    before, after = decision(0, id="before"), decision(0, id="after")
    assert await world.run([FakeBatch([record(0, before), erasure(1), record(2, after)])])
    assert (world.accepted["before"], world.accepted["after"]) == (0, 1)
    assert [event.properties["decisionId"] for event in world.receipts()] == ["after"]


async def test_a_replay_of_the_topic_sends_nothing_that_the_ledger_no_longer_remembers() -> None:
    world = World()
    log = [record(0, decision(0)), erasure(1)]
    await world.run([FakeBatch(log)])
    again = World()
    again.rows = world.rows
    assert await again.run([FakeBatch(log[:1]), FakeBatch(log)])
    assert not again.accepted
    assert not again.receipts()
    assert set(again.rows) == {mark_key(SUBJECT)}


@pytest.mark.parametrize("answers", [["accepted"], ["retry", "retry", "accepted"], ["lost"]])
async def test_an_attempt_under_way_is_let_end_and_leaves_no_trace(answers: list[str]) -> None:
    for seed in range(20):
        made = decision(0)
        world = World(seed=seed, answers={made.id: answers})
        deliverer = world.deliverer()
        first = asyncio.create_task(deliverer.deliver(FakeBatch([record(0, made)])))
        await until(lambda: world.attempts[made.id] > 0)  # noqa: B023 - awaited here
        await asyncio.wait_for(deliverer.deliver(FakeBatch([erasure(1)])), 10)
        told = [value for topic, *_, value, _ in world.produced if topic == EVENTS]
        attempts = world.attempts[made.id]
        assert set(world.rows) == {mark_key(SUBJECT)}, f"seed {seed}"
        await finished(first)
        assert world.attempts[made.id] == attempts, "no attempt after the receipt of the erasure"
        assert [value for topic, *_, value, _ in world.produced if topic == EVENTS] == told
        assert set(world.rows) == {mark_key(SUBJECT)}


async def test_a_decision_that_is_held_back_is_given_up() -> None:
    world, made = World(), decision(0)
    world.feed_fresh = False
    deliverer: Deliverer = world.deliverer()
    held = asyncio.create_task(deliverer.deliver(FakeBatch([record(0, made)])))
    await until(lambda: bool(world.time.slept))
    await asyncio.wait_for(deliverer.deliver(FakeBatch([erasure(1)])), 10)
    world.feed_fresh = True
    await finished(held)
    assert not world.accepted
    assert not world.receipts()
    assert set(world.rows) == {mark_key(SUBJECT)}


async def test_a_kill_at_any_step_of_an_erasure_leaves_it_to_the_next_life() -> None:
    steps, die_at = 1, 1
    while die_at <= steps:
        world = World()
        await world.run([FakeBatch([record(n, decision(0, id=f"d{n}")) for n in range(3)])])
        accepted = dict(world.accepted)
        survived = await world.run([FakeBatch([erasure(3)])], die_at=die_at)
        steps = max(steps, world.steps + (not survived))
        assert await world.run([FakeBatch([record(0, decision(0, id="d0")), erasure(3)])])
        assert set(world.rows) == {mark_key(SUBJECT)}
        assert dict(world.accepted) == accepted
        assert receipts(world)
        die_at += 1
    assert die_at > 4, "an erasure writes and produces: each has a step before and one after"


def test_only_a_record_of_the_worker_about_its_own_key_is_a_request() -> None:
    true = erasure(1)
    other_key, other_kind, broken = erasure(2), record(3, decision(0)), erasure(4)
    other_key.key, broken.value = b"u9", b"{"
    assert [found.offset for found in read_erasures([true, other_key, other_kind, broken])] == [1]


def test_an_index_row_outlives_its_entry_and_a_mark_outlives_both() -> None:
    entry = (b"id", encode_entry(LedgerEntry(State.SENT, 0, at_ms=0)))
    mark = (mark_key(SUBJECT), encode_entry(LedgerEntry(State.FAILED, 7, at_ms=0)))
    index = index_row(SUBJECT, b"id", 0)
    assert index[0].startswith(index_prefix(SUBJECT))
    assert decode_entry(mark[1]).offset == 7

    def swept(age_ms: int) -> list[bytes]:
        return [key for key, _ in sweep([entry, index, mark], age_ms, retention_ms=DAY_MS)]

    assert swept(DAY_MS + 1) == [b"id"]
    assert swept(2 * DAY_MS + 1) == [b"id", index[0]]
    assert swept(MARK_RETENTION_MS + 1) == [b"id", index[0], mark[0]]
