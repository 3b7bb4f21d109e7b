"""Opt-outs and expiry racing with queued sends, in thousands of orders; a slow provider that often refuses."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import Counter

import uvloop

from app.sender.backoff import Backoff
from app.sender.delivery import RUNNERS_MAX
from app.sender.providers.base import Accepted, Message, Outcome, Retry
from app.sender.suppressions import Suppressions
from schemas.events import NOTIFICATIONS_DISABLED, Event
from tables.ledger import State
from tests.support.sender import NOW_MS, FakeBatch, World, decision, record

INTERLEAVINGS = 10_000


class Race(World):
    """A world whose opt-outs are the real ones, told at a moment that the seed chooses."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.dice = random.Random(seed)
        self.feed = Suppressions(b"key")
        self.feed.caught_up(self.time.wall_ms)
        self.late = 0
        self.before = 0

    async def send(self, message: Message) -> Outcome:
        visible = self.suppressed(message.user, message.category)
        self.late += visible is True
        self.before += visible is False
        await self.step()
        answer = self.dice.random()
        return Retry("http_503") if answer < 0.3 else Accepted()

    def suppressed(self, user: str, category: str) -> bool | None:
        return self.feed.check(user, category, self.time.wall_ms)

    async def opt_out(self, user: str) -> None:
        for _ in range(self.dice.randrange(40)):
            await asyncio.sleep(0)
        properties = {"category": "news"} if self.dice.random() < 0.5 else {}
        event = Event(type="track", event=NOTIFICATIONS_DISABLED, user_id=user, timestamp=1, properties=properties)
        self.feed.feed(event, received_ms=1, wall_ms=self.time.wall_ms)


async def race(seed: int) -> tuple[int, int, int]:
    """Sends after a visible opt-out, sends before it, and decisions that it stopped."""
    world = Race(seed)
    made = [decision(0), decision(0, id="second", transactional=seed % 2 == 0), decision(1)]
    deliverer = world.deliverer(concurrency=1 + seed % 3)
    batches = [FakeBatch([record(0, made[0]), record(1, made[1])]), FakeBatch([record(2, made[2])])]
    async with asyncio.timeout(10):
        await asyncio.gather(*(deliverer.deliver(batch) for batch in batches), world.opt_out("u0"))
    stopped = sum(world.entry(each).reason == "opted_out" for each in made)
    assert world.entry(made[2]).reason != "opted_out", "another user's opt-out"
    return world.late, world.before, stopped


def test_nothing_is_sent_after_an_opt_out_that_could_be_seen() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # twice as fast
        runner.run(many_races())


async def many_races() -> None:
    late = before = stopped = 0
    for seed in range(INTERLEAVINGS):
        found = await race(seed)
        assert not found[0], f"seed {seed}: sent after the opt-out was visible"
        late, before, stopped = late + found[0], before + found[1], stopped + found[2]
    print(f"{INTERLEAVINGS} interleavings: {before} attempts before, {late} after, {stopped} decisions stopped")
    assert stopped > INTERLEAVINGS / 10, "the opt-outs came too late to stop anything"
    assert before > INTERLEAVINGS, "the opt-outs came too early to race with anything"


class Clockwork:
    """Virtual time in which many sleep at once: it moves when everybody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = itertools.count()

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now_s + seconds, next(self._order), woken))
        await woken.wait()

    async def run(self, task: asyncio.Future[object]) -> None:
        while not task.done():
            for _ in range(20):
                await asyncio.sleep(0)
            if self._sleepers:
                self.now_s, _, woken = heapq.heappop(self._sleepers)
                woken.set()

    def now_ms(self) -> int:
        return NOW_MS + int((self.now_s - 1_700_000_000.0) * 1_000)


async def test_a_slow_provider_that_refuses_a_third_gets_nothing_expired_and_no_more_than_its_share() -> None:
    seed = 13
    dice, clock, world = random.Random(seed), Clockwork(), World()
    under_way = most = 0
    late: list[str] = []
    answers: Counter[str] = Counter()
    made = [decision(n, expires_ms=NOW_MS + dice.randrange(1_000, 180_000)) for n in range(320)]

    async def send(message: Message) -> Outcome:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if clock.now_ms() > message.expires_ms:
            late.append(message.id)
        await clock.sleep(5.0)
        under_way -= 1
        outcome: Outcome = Retry("http_503") if dice.random() < 0.3 else Accepted()
        answers[type(outcome).__name__] += 1
        return outcome

    world.send = send  # type: ignore[method-assign]
    world.time.sleep, world.time.wall_s = clock.sleep, lambda: clock.now_s  # type: ignore[method-assign]
    world.time.now_ms = clock.now_ms  # type: ignore[method-assign]
    deliverer = world.deliverer(concurrency=16, backoff=Backoff())
    batches = [
        FakeBatch([record(n, each) for n, each in enumerate(made)][start : start + 150]) for start in (0, 150, 300)
    ]
    tasks_before = len(asyncio.all_tasks())
    delivery = asyncio.gather(*(deliverer.deliver(batch) for batch in batches))
    clockwork = asyncio.create_task(clock.run(delivery))
    tasks_most = 0
    async with asyncio.timeout(20):
        while not delivery.done():
            tasks_most = max(tasks_most, len(asyncio.all_tasks()) - tasks_before)
            await asyncio.sleep(0)
        await clockwork
    ends = Counter((world.entry(each).state.name, world.entry(each).reason) for each in made)
    print(f"seed {seed}: {dict(answers)}, {dict(ends)}, at most {most} at once, {tasks_most} tasks")
    assert late == [], "sent after it had expired"
    assert all(batch.completed for batch in batches)
    assert most == 14, "16 places, two of them for urgent messages"
    assert answers["Retry"] > 40
    assert ends["FAILED", "expired"] > 50
    assert ends["SENT", ""] > 50
    assert sum(ends.values()) == len(made)
    assert all(world.entry(each).state is not State.RESERVED for each in made)
    assert tasks_most < 4 * (RUNNERS_MAX + len(batches)), "bounded, however many wait"
