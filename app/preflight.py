"""What a process cannot do without: a broker that answers, and topics that fit together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from app.settings import Settings
from schemas.topics import BY_NAME

log = structlog.get_logger(__name__)

RETRY_S = 2.0


class Preflight:
    """Waits until the broker answers and the topics exist; `problem` says what is missing meanwhile.

    A wrong partition count does not mend itself: it is logged with the mend each time, and the process stays unready.
    """

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self.problem: str | None = "starting"

    async def wait(self) -> None:
        """Return when everything is there."""
        while (problem := await self._check()) is not None:
            if problem != self.problem:
                log.warning("waiting", problem=problem)
            self.problem = problem
            await asyncio.sleep(RETRY_S)
        self.problem = None

    async def _check(self) -> str | None:
        consumer = AIOKafkaConsumer(request_timeout_ms=5_000, **self._settings.client_settings())
        try:
            await asyncio.wait_for(consumer.start(), 15)
            names = await consumer.topics()
            missing = [name for name in self._topics if name not in names]
            if missing:
                return f"topics are missing: {', '.join(missing)}; create them with `nudge topics create`"
            return self._misfit(consumer)
        except (KafkaError, OSError, TimeoutError) as exc:
            return f"no Kafka broker answers at {self._settings.broker} (NUDGE_BROKER): {type(exc).__name__}"
        finally:
            await consumer.stop()

    def _misfit(self, consumer: AIOKafkaConsumer) -> str | None:
        expected = self._settings.partitions
        for name in self._topics:
            topic = BY_NAME.get(name)
            if topic is None or topic.partitions != "events":
                continue
            found = len(consumer.partitions_for_topic(name) or ())
            if found != expected:
                return (
                    f"topic {name} has {found} partitions, NUDGE_PARTITIONS says {expected}: set it to the number of "
                    "partitions of `events`; the topics bound to `events` must have the same"
                )
        return None
