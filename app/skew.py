"""How far this machine's clock is from the broker's.

No Kafka response tells the broker's time but one: that to a record of a topic which the broker stamps itself
(``LogAppendTime``). So an empty record goes to a topic of its own; the stamp was made between its sending and its
acknowledgement. It is acknowledged by the partition's leader alone, whose clock it is.

The lease plays no part here: a worker that was cut off must not be ended by a record that says nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app.stream.background import Background
from app.stream.started import started
from schemas.topics import CLOCK

log = structlog.get_logger(__name__)

SKEW_S_MAX: Final = 1.0
"""Beyond it event times and expiries are visibly wrong, and alerts fire."""
INTERVAL_S: Final = 30.0
_KEPT: Final = 8
_TIMEOUT_S: Final = 10.0
_LOG_APPEND_TIME: Final = 1


class Reading(NamedTuple):
    """Seconds by which our clock is ahead of the broker's, give or take `error_s`."""

    ahead_s: float
    error_s: float


def reading(sent_s: float, acknowledged_s: float, stamped_ms: int) -> Reading | None:
    """What a stamp says that was made between two looks at our clock; None where the clock went back in between.

    Examples
    --------
    >>> reading(100.0, 100.5, 98_250)
    Reading(ahead_s=2.0, error_s=0.25)
    >>> reading(100.0, 99.0, 98_250)
    """
    if acknowledged_s < sent_s:
        return None
    return Reading((sent_s + acknowledged_s) / 2 - stamped_ms / 1_000, (acknowledged_s - sent_s) / 2)


class BrokerClock:
    """Asks the broker the time. An async context manager.

    Parameters
    ----------
    client_settings
        Of an aiokafka client.
    topic
        Must exist: asking for one that does not would create it on a broker that creates topics on demand.

    Raises
    ------
    aiokafka.errors.KafkaError
        When no broker answers.
    """

    def __init__(
        self, client_settings: Mapping[str, Any], *, topic: str = CLOCK, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._settings = dict(client_settings)
        self._topic = topic
        self._wall_s = wall_s
        self._producer: AIOKafkaProducer | None = None
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        producer = AIOKafkaProducer(acks=1, linger_ms=0, request_timeout_ms=int(_TIMEOUT_S * 1_000), **self._settings)
        self._producer = await self._exit.enter_async_context(started(producer))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._producer = None
        await self._exit.aclose()

    async def ask(self) -> Reading | None:
        """One look; None when the topic's records are not stamped by the broker, or a clock went back."""
        assert self._producer is not None, "not started"
        async with asyncio.timeout(2 * _TIMEOUT_S):
            await self._producer.partitions_for(self._topic)  # metadata first: the round trip is the record's alone
            sent_s = self._wall_s()
            metadata = await (await self._producer.send(self._topic, b""))
        acknowledged_s = self._wall_s()
        if metadata.timestamp_type != _LOG_APPEND_TIME:
            return None
        return reading(sent_s, acknowledged_s, metadata.timestamp)

    async def best_of(self, looks: int) -> Reading | None:
        """The look with the shortest round trip: what delays a record or its answer makes the others less exact."""
        found = [one for one in [await self.ask() for _ in range(looks)] if one is not None]
        return min(found, key=lambda one: one.error_s, default=None)


class ClockWatch(Background):
    """Asks twice a minute, for as long as the process lives, and passes on the best of the last few minutes.

    Parameters
    ----------
    told
        Called with seconds ahead of the broker; NaN for "cannot be told".
    """

    task_name = "clock"

    def __init__(
        self, clock: Callable[[], BrokerClock], told: Callable[[float], object], *, interval_s: float = INTERVAL_S
    ) -> None:
        self._clock = clock
        self._told = told
        self._interval_s = interval_s
        self._kept: deque[Reading] = deque(maxlen=_KEPT)
        self._skewed = False
        told(math.nan)

    async def _run(self) -> None:
        while True:
            try:
                async with self._clock() as clock:
                    while True:
                        self._keep(await clock.ask())
                        await asyncio.sleep(self._interval_s)
            except (KafkaError, OSError, TimeoutError) as exc:  # a broker that is away is told by others
                self._keep(None)
                log.debug("clock_not_read", error=type(exc).__name__)
            await asyncio.sleep(self._interval_s)

    def _keep(self, found: Reading | None) -> None:
        if found is None:
            self._kept.clear()
            self._told(math.nan)
            return
        self._kept.append(found)
        ahead_s = min(self._kept, key=lambda one: one.error_s).ahead_s
        self._told(ahead_s)
        if (skewed := abs(ahead_s) > SKEW_S_MAX) != self._skewed:
            self._skewed = skewed
            log.warning("clock_skew", ahead_s=round(ahead_s, 3), skewed=skewed)
