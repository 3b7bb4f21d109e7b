from __future__ import annotations

import asyncio

from app.stream.backlog import Backlog


def test_only_the_topic_that_has_too_much_is_full() -> None:
    backlog = Backlog(limit=10)
    backlog.delivered("events", 11)
    backlog.delivered("outcomes", 10)
    assert backlog.full == {"events"}
    backlog.taken("outcomes", 10)
    assert backlog.full == {"events"}
    backlog.taken("events", 1)
    assert backlog.full == set()


def test_many_small_batches_fill_a_topic_too() -> None:
    backlog = Backlog(limit=1_000, batches_max=2)
    for _ in range(3):
        backlog.delivered("events", 1)
    assert backlog.full == {"events"}
    backlog.taken("events", 1)
    assert backlog.full == set()


def test_what_was_dropped_with_the_flow_does_not_count_even_when_it_is_taken_later() -> None:
    backlog = Backlog(limit=10)
    backlog.delivered("events", 50)
    backlog.clear()
    assert backlog.full == set()
    backlog.taken("events", 50)
    backlog.delivered("events", 11)
    assert backlog.full == {"events"}


async def test_room_wakes_who_waits_for_it() -> None:
    backlog = Backlog(limit=10)
    backlog.delivered("events", 20)
    asyncio.get_running_loop().call_later(0.01, backlog.taken, "events", 15)
    began = asyncio.get_running_loop().time()
    await backlog.room(5.0)
    assert asyncio.get_running_loop().time() - began < 2.0
    await backlog.room(5.0)  # there is room: at once
    backlog.delivered("events", 20)
    await backlog.room(0.01)
    assert backlog.full == {"events"}


async def test_what_comes_while_something_is_on_its_way_is_gathered() -> None:
    backlog, settled = Backlog(), asyncio.Event()
    backlog.delivered("events", 3)
    backlog.delivered("events", 2)
    gathering = asyncio.create_task(backlog.gather(settled, timeout_s=60.0))
    backlog.taken("events", 3)
    settled.set()
    await asyncio.sleep(0)
    assert not gathering.done()
    settled.clear()
    backlog.taken("events", 2)
    await asyncio.sleep(0)
    assert not gathering.done()
    settled.set()
    await asyncio.wait_for(gathering, timeout=5.0)


async def test_nothing_is_gathered_where_nothing_is_on_its_way_nor_for_ever() -> None:
    backlog, settled = Backlog(), asyncio.Event()
    await backlog.gather(settled, timeout_s=0.0)
    settled.set()
    await asyncio.wait_for(backlog.gather(settled, timeout_s=60.0), timeout=5.0)
    backlog.delivered("events", 1)
    backlog.clear()
    await asyncio.wait_for(backlog.gather(settled, timeout_s=60.0), timeout=5.0)
