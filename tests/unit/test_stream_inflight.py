from __future__ import annotations

import asyncio

import pytest

from app.stream.inflight import InFlight


async def waits(room: InFlight, records: int) -> asyncio.Task[None]:
    task = asyncio.create_task(room.acquire(records))
    await asyncio.sleep(0)
    return task


async def test_small_batches_are_bounded_by_their_number_and_large_ones_by_their_records() -> None:
    room = InFlight(records_max=100, batches_max=3)
    for _ in range(3):
        await room.acquire(1)
    fourth = await waits(room, 1)
    assert not fourth.done()
    room.release(1)
    await fourth
    for _ in range(3):
        room.release(1)
    await room.acquire(60)
    second = await waits(room, 60)
    assert not second.done()
    room.release(60)
    await second


async def test_a_batch_larger_than_all_the_room_goes_alone() -> None:
    room = InFlight(records_max=100, batches_max=3)
    await room.acquire(500)
    other = await waits(room, 1)
    assert not other.done()
    room.release(500)
    await other


async def test_room_is_given_in_the_order_in_which_it_was_asked_for() -> None:
    room = InFlight(records_max=100, batches_max=3)
    await room.acquire(100)
    large, small = await waits(room, 90), await waits(room, 20)
    room.release(100)
    await large
    await asyncio.sleep(0)
    assert not small.done()


async def test_who_gives_up_waiting_holds_nothing() -> None:
    room = InFlight(records_max=10, batches_max=3)
    await room.acquire(10)
    first, second = await waits(room, 10), await waits(room, 5)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    room.release(10)
    await second
    room.release(5)
    assert (room.records, room.batches) == (0, 0)


async def test_room_that_was_given_to_somebody_who_gave_up_goes_to_the_next() -> None:
    room = InFlight(records_max=10, batches_max=3)
    await room.acquire(10)
    first, second = await waits(room, 10), await waits(room, 5)
    room.release(10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert (room.records, room.batches) == (5, 1)


async def test_it_says_when_nothing_is_on_its_way() -> None:
    room = InFlight()
    assert room.empty.is_set()
    await room.acquire(1)
    await room.acquire(1)
    room.release(1)
    assert not room.empty.is_set()
    room.release(1)
    assert room.empty.is_set()


async def test_who_gives_up_in_the_moment_in_which_there_is_room_is_cancelled_and_nothing_else() -> None:
    room = InFlight(records_max=10, batches_max=3)
    await room.acquire(10)
    first, second = await waits(room, 10), await waits(room, 5)
    first.cancel()
    room.release(10)  # before the first has heard of it
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert (room.records, room.batches) == (5, 1)
