"""Who may ask a provider next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.sender.lane import Lane, Stopping
from app.sender.providers.base import Accepted, Message, Outcome, Unknown
from app.sender.recorder import NoRecorder
from app.sender.throttle import ThrottleSettings
from tests.support.sender import Time

MESSAGE = Message(id="1", user="u", campaign="c", category="n", title="t", body="b")


class Scripted:
    """Answers as told."""

    def __init__(self) -> None:
        self.outcome: Outcome = Accepted()
        self.asked = 0

    async def send(self, message: Message) -> Outcome:
        self.asked += 1
        await asyncio.sleep(0)
        return self.outcome

    async def close(self) -> None: ...


def lane(provider: Scripted, time: Time, *, concurrency: int = 1, **throttle: float) -> Lane:
    return Lane(
        "fake",
        provider,
        concurrency=concurrency,
        timeout_s=5,
        throttle=ThrottleSettings(**throttle),  # type: ignore[arg-type]
        recorder=NoRecorder(),
        sleep=time.sleep,
        monotonic_s=time.wall_s,
    )


class Gate:
    """Messages that stay in the lane until they are let go."""

    def __init__(self, on: Lane) -> None:
        self.lane = on
        self.order: list[str] = []
        self.release = asyncio.Event()

    def enter(self, name: str, *, urgent: bool = False) -> asyncio.Task[None]:
        async def go() -> None:
            async with self.lane.turn(urgent=urgent):
                self.order.append(name)
                await self.release.wait()

        return asyncio.create_task(go())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - there is no event: steps of the loop are counted
                await asyncio.sleep(0)


async def test_urgent_messages_overtake_those_that_wait() -> None:
    gate = Gate(lane(Scripted(), Time()))
    tasks = [gate.enter("first"), gate.enter("second"), gate.enter("third")]
    await gate.until(lambda: gate.order == ["first"])
    tasks.append(gate.enter("urgent", urgent=True))
    await asyncio.sleep(0)
    gate.release.set()
    await asyncio.gather(*tasks)
    assert gate.order == ["first", "urgent", "second", "third"]


async def test_slow_promotional_messages_leave_places_for_urgent_ones() -> None:
    gate = Gate(lane(Scripted(), Time(), concurrency=16))
    slow = [gate.enter("slow") for _ in range(40)]
    await gate.until(lambda: len(gate.order) == 14)
    urgent = [gate.enter("urgent", urgent=True) for _ in range(3)]
    await gate.until(lambda: gate.order.count("urgent") == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert gate.order == ["slow"] * 14 + ["urgent"] * 2
    gate.release.set()
    await asyncio.gather(*slow, *urgent)


async def test_one_that_was_cancelled_while_it_waited_takes_no_place() -> None:
    gate = Gate(lane(Scripted(), Time()))
    first, second, third = gate.enter("first"), gate.enter("second"), gate.enter("third")
    await gate.until(lambda: gate.order == ["first"])
    second.cancel()
    gate.release.set()
    await asyncio.gather(first, third)
    assert gate.order == ["first", "third"]


async def test_one_that_was_cancelled_at_the_moment_it_was_let_on_gives_its_place_away() -> None:
    gate = Gate(lane(Scripted(), Time()))
    first, second, third = gate.enter("first"), gate.enter("second"), gate.enter("third")
    await gate.until(lambda: gate.order == ["first"])
    gate.release.set()
    await first  # the second was granted the place in the same step
    second.cancel()
    await asyncio.wait_for(third, 5)
    assert "third" in gate.order


async def test_a_stopped_lane_turns_away_who_waits_and_keeps_who_is_on_the_way() -> None:
    on = lane(Scripted(), Time())
    gate = Gate(on)
    first, second = gate.enter("first"), gate.enter("second")
    await gate.until(lambda: gate.order == ["first"])
    on.stop()
    with pytest.raises(Stopping):
        await second
    with pytest.raises(Stopping):
        await gate.enter("third")
    gate.release.set()
    await first
    on.resume()
    await gate.enter("fourth")
    assert gate.order == ["first", "fourth"]


async def test_a_broken_provider_is_left_alone_and_tried_again_by_one_message() -> None:
    provider, time = Scripted(), Time()
    on = lane(provider, time, concurrency=8, failures_max=3, open_s=10.0)
    provider.outcome = Unknown("timeout")

    async def send() -> None:
        async with on.turn():
            await on.send(MESSAGE)

    for _ in range(3):
        await send()
    assert time.slept == []
    provider.outcome = Accepted()
    await asyncio.wait_for(asyncio.gather(*(send() for _ in range(20))), 5)
    assert time.slept == [pytest.approx(10.0)]
    assert provider.asked == 23


async def test_the_rate_holds_for_all_messages_together() -> None:
    provider, time = Scripted(), Time()
    on = lane(provider, time, concurrency=8, rate_per_s=10.0)
    began_s = time.wall_s()

    async def send() -> None:
        async with on.turn():
            await on.send(MESSAGE)

    await asyncio.wait_for(asyncio.gather(*(send() for _ in range(50))), 5)
    assert time.wall_s() - began_s == pytest.approx(4.8, abs=0.3)
