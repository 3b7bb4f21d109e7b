"""What is made of looks at the broker's clock."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Self

from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from app.skew import BrokerClock, ClockWatch, Reading, reading


@given(
    skew_s=st.floats(-1e6, 1e6),
    there_s=st.floats(0, 30),
    back_s=st.floats(0, 30),
)
def test_the_truth_is_within_the_error(skew_s: float, there_s: float, back_s: float) -> None:
    sent_s = 1_700_000_000.0
    stamped_ms = (sent_s + there_s - skew_s) * 1_000  # by the broker's clock, when the record had arrived
    found = reading(sent_s, sent_s + there_s + back_s, round(stamped_ms))
    assert found is not None
    assert abs(found.ahead_s - skew_s) <= found.error_s + 0.001  # stamps are whole milliseconds


class FakeClock(BrokerClock):
    """Gives what it is told, then breaks."""

    def __init__(self, found: list[Reading | None]) -> None:
        self.found = found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def ask(self) -> Reading | None:
        if not self.found:
            raise KafkaConnectionError("gone")
        return self.found.pop(0)


async def told_of(found: list[Reading | None]) -> list[float]:
    """What a watch passes on, up to the loss of the broker."""
    told: list[float] = []
    clock = FakeClock(found)
    watch = ClockWatch(lambda: clock, told.append, interval_s=0.0)
    looks = len(found) + 2  # "not known yet", the looks, "not known any more"
    watch.start()
    async with asyncio.timeout(5):
        while len(told) < looks:  # noqa: ASYNC110 - steps of the loop are what is waited for
            await asyncio.sleep(0)
    await watch.stop()
    return told[:looks]


async def test_the_look_with_the_shortest_round_trip_counts() -> None:
    told = await told_of([Reading(9.0, 4.0), Reading(5.0, 0.1), Reading(0.0, 6.0)])
    assert told[1:4] == [9.0, 5.0, 5.0]


async def test_an_old_look_is_forgotten() -> None:
    told = await told_of([Reading(5.0, 0.001), *[Reading(1.0, 0.1)] * 8])
    assert (told[8], told[9]) == (5.0, 1.0)


async def test_what_cannot_be_told_is_no_figure() -> None:
    told = await told_of([Reading(5.0, 0.1), None])
    assert [math.isnan(one) for one in told] == [True, False, True, True]


async def test_the_best_of_several_looks_leaves_out_those_that_say_nothing() -> None:
    found: list[Any] = [None, Reading(3.0, 0.5), Reading(2.0, 0.2), None]
    assert await FakeClock(found).best_of(4) == Reading(2.0, 0.2)
    assert await FakeClock([None]).best_of(1) is None
