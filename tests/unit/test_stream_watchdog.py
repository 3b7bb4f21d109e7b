from __future__ import annotations

import asyncio
import threading
import time

import pytest
from faust.types import TP

from app.stream.transport import BatchedConsumer
from app.stream.watchdog import Blockage, Stillness, Vitals, Watchdog

AT_WORK = "5 records wait"


def looks(still: Stillness, *vitals: Vitals, every_s: float = 1.0) -> list[str | None]:
    return [still.look(100.0 + every_s * number, each) for number, each in enumerate(vitals)]


def test_a_worker_that_moves_or_has_nothing_to_do_is_left_alone() -> None:
    assert not any(looks(Stillness(3.0), *(Vitals(True, AT_WORK, number) for number in range(10))))
    assert not any(looks(Stillness(3.0), *[Vitals(True, "", 7)] * 10))


def test_a_worker_in_which_nothing_moves_though_work_waits_is_wedged() -> None:
    found = looks(Stillness(3.0), *[Vitals(True, AT_WORK, 7)] * 5)
    assert found[:3] == [None] * 3
    assert found[3] == "5 records wait, and nothing has moved for 3 s"


def test_a_broker_that_does_not_answer_is_no_reason() -> None:
    away, back = Vitals(False, AT_WORK, 7), Vitals(True, AT_WORK, 7)
    assert not any(looks(Stillness(3.0), *[away] * 20, back, back))


def test_a_suspension_is_no_reason() -> None:
    still = Stillness(3.0)
    looks(still, *[Vitals(True, AT_WORK, 7)] * 2)
    assert still.look(200.0, Vitals(True, AT_WORK, 7)) is None
    assert still.look(201.0, Vitals(True, AT_WORK, 7)) is None


def test_an_event_loop_that_does_not_beat_is_blocked() -> None:
    blockage = Blockage(2.0)
    assert [blockage.look(float(at), beats) for at, beats in enumerate((1, 2, 2, 2))] == [
        None, None, None, "the event loop has been blocked for 2 s",
    ]  # fmt: skip


def test_a_process_that_was_suspended_is_not_blocked() -> None:
    blockage = Blockage(2.0)
    assert [blockage.look(at, 1) for at in (0.0, 1.0, 60.0, 61.0)] == [None] * 4


async def test_a_look_that_fails_is_not_a_blockage() -> None:
    """As around a rebalance, when a partition that is looked at has just been taken away."""
    looked = asyncio.Event()
    beats: list[int] = []

    def vitals() -> Vitals:
        beats.append(1)
        if len(beats) == 2:
            looked.set()
        raise AssertionError("Partition is not assigned")

    def fatal(why: str) -> None:
        raise AssertionError(why)

    dog = Watchdog(vitals, fatal, stall_s=60.0, block_s=60.0)  # type: ignore[arg-type]
    dog.start()
    await asyncio.wait_for(looked.wait(), 10)
    dog.stop()


def test_a_partition_that_is_not_ours_any_more_has_no_end() -> None:
    class Thread:
        def highwater(self, tp: TP) -> int:
            if tp.partition:
                raise AssertionError("Partition is not assigned")  # aiokafka's words
            return 7

    consumer = BatchedConsumer.__new__(BatchedConsumer)
    consumer._thread = Thread()
    assert [consumer.highwater(TP("events", partition)) for partition in (0, 1)] == [7, None]


async def test_a_blocked_event_loop_is_ended_from_a_thread_with_all_stacks(capfd: pytest.CaptureFixture[str]) -> None:
    reasons: list[str] = []
    ended = threading.Event()

    def fatal(why: str) -> None:
        reasons.append(why)
        ended.set()

    dog = Watchdog(lambda: Vitals(True, "", 0), fatal, stall_s=60.0, block_s=0.5)  # type: ignore[arg-type]
    dog.start()
    await asyncio.sleep(0)
    deadline = time.monotonic() + 20
    while not ended.is_set() and time.monotonic() < deadline:
        time.sleep(0.05)  # noqa: ASYNC251 - this is the blockage
    dog.stop()
    assert reasons[0].startswith("the worker is wedged: the event loop has been blocked for")
    assert "test_stream_watchdog.py" in capfd.readouterr().err


async def test_a_wedged_worker_shows_what_its_tasks_wait_for_those_of_other_threads_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    gone_on = asyncio.Event()
    waiting = asyncio.run_coroutine_threadsafe(gone_on.wait(), loop)
    ended = asyncio.Event()
    dog = Watchdog(
        lambda: Vitals(True, AT_WORK, 0),
        lambda why: ended.set(),  # type: ignore[arg-type, return-value]
        stall_s=0.5,
        block_s=60.0,
        others=lambda: (loop,),
    )
    dog.start()
    await asyncio.wait_for(ended.wait(), 20)
    dog.stop()
    loop.call_soon_threadsafe(gone_on.set)
    await asyncio.wrap_future(waiting)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    shown = capsys.readouterr().err
    assert "Watchdog._beat" in shown
    assert "Event.wait" in shown
