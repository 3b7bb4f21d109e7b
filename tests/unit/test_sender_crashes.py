"""Kills between any two steps of a delivery, alone and in any number, and what must hold afterwards."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.decisions import Decision
from tables.ledger import State
from tests.support.sender import FakeBatch, World, decision, record

# The steps of one decision: a step before and one after each effect.
#   1 [reserve] 2   3 [send] 4   5 [record] 6   7 [receipt] 8
BEFORE_RESERVE, RESERVED, BEFORE_SEND, ACCEPTED, BEFORE_RECORD, RECORDED, BEFORE_RECEIPT, TOLD = range(1, 9)


def told(world: World) -> list[tuple[str, str]]:
    return [(event.event, event.properties.get("reason", "")) for event in world.receipts()]


SENT, LOST = ("Notification Sent", ""), ("Notification Failed", "unknown")


@pytest.mark.parametrize(
    ("die_at", "promotional", "transactional"),
    [
        # killed at: (times accepted, receipts) after the restart
        (BEFORE_RESERVE, (1, [SENT]), (1, [SENT])),
        (RESERVED, (0, [LOST]), (1, [SENT])),
        (BEFORE_SEND, (0, [LOST]), (1, [SENT])),
        (ACCEPTED, (1, [LOST]), (2, [SENT])),
        (BEFORE_RECORD, (1, [LOST]), (2, [SENT])),
        (RECORDED, (1, [SENT]), (1, [SENT])),
        (BEFORE_RECEIPT, (1, [SENT]), (1, [SENT])),
        (TOLD, (1, [SENT, SENT]), (1, [SENT, SENT])),
    ],
)
@pytest.mark.parametrize("kind", ["promotional", "transactional"])
async def test_a_kill_at_each_step_ends_as_the_kind_of_message_demands(
    kind: str,
    die_at: int,
    promotional: tuple[int, list[tuple[str, str]]],
    transactional: tuple[int, list[tuple[str, str]]],
) -> None:
    world, made = World(), decision(transactional=kind == "transactional")
    assert not await world.run([FakeBatch([record(0, made)])], die_at=die_at)
    assert world.steps >= die_at
    batch = FakeBatch([record(0, made)])
    assert await world.run([batch])
    accepted, receipts = promotional if kind == "promotional" else transactional
    assert (world.accepted[made.id], told(world)) == (accepted, receipts)
    assert batch.completed


async def test_a_restart_that_finds_a_transactional_reservation_expired_does_not_send_it_late() -> None:
    world, made = World(), decision(transactional=True)
    await world.run([FakeBatch([record(0, made)])], die_at=ACCEPTED)
    world.time.now = made.expires_ms + 1
    await world.run([FakeBatch([record(0, made)])])
    assert world.accepted[made.id] == 1
    assert told(world) == [LOST]  # not "expired": it did go out


answers = st.lists(st.sampled_from(["accepted", "lost", "dropped", "rejected", "retry", "raises"]), max_size=5)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[list[Decision]], dict[str, list[str]], list[int], int]:
    """Batches of decisions (the same id may stand in several), the provider's answers, kills, and a seed."""
    made = [decision(n, transactional=draw(st.booleans())) for n in range(draw(st.integers(1, 5)))]
    batches = draw(st.lists(st.lists(st.sampled_from(made), min_size=1, max_size=4), min_size=1, max_size=3))
    script = {each.id: draw(answers) for each in made}
    return batches, script, draw(st.lists(st.integers(1, 60), max_size=6)), draw(st.integers(0, 2**32))


async def replay_until_done(world: World, batches: list[list[Decision]], kills: list[int]) -> None:
    """Run as the worker does: from the committed offset, again after every kill."""
    offsets = iter(range(1_000))
    log = [[record(next(offsets), made) for made in batch] for batch in batches]
    committed = 0
    for die_at in [*kills, None]:
        flight = [FakeBatch(records) for records in log[committed:]]
        done = await world.run(flight, die_at=die_at)
        # The barrier: only an unbroken run of completed batches is committed.
        for batch in flight:
            if not batch.completed:
                break
            committed += 1
        assert done or die_at is not None, "only a kill may end a run early"
        if done:
            assert committed == len(log)
            return


@settings(max_examples=300)
@given(histories())
def test_promotional_at_most_once_transactional_at_least_once_and_one_receipt_id_each(
    history: tuple[list[list[Decision]], dict[str, list[str]], list[int], int],
) -> None:
    batches, script, kills, seed = history

    async def scenario() -> World:
        world = World(seed=seed, answers=script)
        await replay_until_done(world, batches, kills)
        return world

    world = asyncio.run(scenario())
    receipts: dict[str, set[str | None]] = {}
    for event in world.receipts():
        receipts.setdefault(event.properties["decisionId"], set()).add(event.message_id)
    for made in {each.id: each for batch in batches for each in batch}.values():
        state, accepted = world.entry(made).state, world.accepted[made.id]
        assert state is not State.RESERVED
        if not made.transactional:
            assert accepted <= 1
        if state is State.SENT:
            assert accepted >= 1
        if state is State.FAILED:
            assert accepted == 0
        if made.transactional and "rejected" not in script[made.id] and script[made.id].count("accepted"):
            within = script[made.id].index("accepted") < 4
            assert not within or accepted >= 1
        assert receipts[made.id] == {f"{made.id}:{'sent' if state is State.SENT else 'failed'}"}
