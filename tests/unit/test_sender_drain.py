"""A sender that is told to stop: what is on the way ends, what waits goes back as if it had never been seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.sender.delivery import Deliverer
from app.sender.providers.base import Accepted, Message, Outcome, Retry, Unknown
from tables.ledger import State
from tests.support.sender import FakeBatch, World, decision, record


class Slow:
    """A provider that answers when it is told to."""

    def __init__(self, world: World, outcome: Outcome | None = None) -> None:
        self.asked: list[str] = []
        self.release = asyncio.Event()
        self.outcome = outcome or Accepted()
        world.send = self.send  # type: ignore[method-assign]

    async def send(self, message: Message) -> Outcome:
        self.asked.append(message.id)
        await self.release.wait()
        return self.outcome


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - steps of the loop are what is waited for
            await asyncio.sleep(0)


async def for_ever(_seconds: float) -> None:
    await asyncio.Event().wait()


def start(deliverer: Deliverer, batch: FakeBatch) -> asyncio.Task[None]:
    return asyncio.create_task(deliverer.deliver(batch))


async def sent_by_the_next_sender(world: World, batch: FakeBatch) -> dict[str, int]:
    """A new sender reads the batch again; how often each id was accepted in all."""
    again = FakeBatch(batch.records)
    del world.send  # the world's own provider
    assert await world.run([again])
    assert again.completed
    return dict(world.accepted)


async def test_what_is_on_the_way_ends_and_what_waits_goes_back_unreserved() -> None:
    world, made = World(), [decision(n) for n in range(5)]
    provider, batch = Slow(world), FakeBatch([record(n, each) for n, each in enumerate(made)])
    deliverer = world.deliverer(concurrency=2)
    delivery = start(deliverer, batch)
    await until(lambda: len(provider.asked) == 2)
    deliverer.stop()
    await asyncio.sleep(0)
    assert not delivery.done()
    provider.release.set()
    await asyncio.wait_for(delivery, 5)
    assert (batch.completed, batch.given_back) == (False, True)
    assert provider.asked == [each.id for each in made[:2]]
    reserved = {key for key in world.rows if not key.startswith(b"\xff")}  # without rows of the index by user
    assert reserved == {each.id.encode() for each in made[:2]}
    assert len(world.rows) == 4
    assert all(world.entry(each).state is State.SENT for each in made[:2])
    assert await sent_by_the_next_sender(world, batch) == {each.id: 1 for each in made[2:]}


async def test_a_batch_whose_messages_all_end_is_complete() -> None:
    world = World()
    provider, batch = Slow(world), FakeBatch([record(0, decision())])
    deliverer = world.deliverer()
    delivery = start(deliverer, batch)
    await until(lambda: bool(provider.asked))
    deliverer.stop()
    provider.release.set()
    await asyncio.wait_for(delivery, 5)
    assert (batch.completed, batch.given_back) == (True, False)


async def test_messages_held_back_by_a_stale_feed_go_back() -> None:
    world, batch = World(), FakeBatch([record(0, decision())])
    world.feed_fresh = False
    world.time.sleep = for_ever  # type: ignore[assignment,method-assign]
    deliverer = world.deliverer()
    delivery = start(deliverer, batch)
    await asyncio.sleep(0.01)
    assert not delivery.done()
    deliverer.stop()
    await asyncio.wait_for(delivery, 5)
    assert batch.given_back
    assert world.rows == {}
    assert world.produced == []


async def test_messages_that_wait_for_another_attempt_go_back_unless_they_may_have_been_sent() -> None:
    for outcome, transactional, left in (
        (Retry("http_503"), False, False),
        (Retry("http_429", 60_000), False, False),
        (Unknown("timeout"), True, True),
    ):
        world, made = World(), decision(transactional=transactional)
        provider, batch = Slow(world, outcome), FakeBatch([record(0, made)])
        provider.release.set()
        world.time.sleep = for_ever  # type: ignore[assignment,method-assign]
        deliverer = world.deliverer()
        delivery = start(deliverer, batch)
        await until(lambda provider=provider: bool(provider.asked))  # type: ignore[misc]
        deliverer.stop()
        await asyncio.wait_for(delivery, 5)
        assert batch.given_back
        assert world.produced == []
        assert bool(world.rows) is left, "a reservation stays where a send may have happened"
        world.time = type(world.time)()
        assert await sent_by_the_next_sender(world, batch) == {made.id: 1}


async def test_a_batch_that_comes_after_the_stop_goes_back_at_once() -> None:
    world, batch = World(), FakeBatch([record(0, decision())])
    deliverer = world.deliverer()
    deliverer.stop()
    await asyncio.wait_for(deliverer.deliver(batch), 5)
    assert batch.given_back
    assert not world.rows
    deliverer.resume()
    again = FakeBatch(batch.records)
    await asyncio.wait_for(deliverer.deliver(again), 5)
    assert again.completed
