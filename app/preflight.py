"""What a process cannot do without: a broker that answers, and topics that fit together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from app.settings import Settings
from app.topics import NoBroker, listed
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
        self.present: frozenset[str] = frozenset()
        """The broker's topics, once all is well."""

    async def wait(self) -> None:
        """Return when everything is there."""
        while (problem := await self._check()) is not None:
            if problem != self.problem:
                log.warning("waiting", problem=problem)
            self.problem = problem
            await asyncio.sleep(RETRY_S)
        self.problem = None

    async def _check(self) -> str | None:
        try:
            partitions = await listed(self._settings.client_settings())
        except NoBroker as exc:
            return str(exc)
        self.present = frozenset(partitions)
        return self._misfit(partitions)

    def _misfit(self, partitions: Mapping[str, int]) -> str | None:
        missing = [name for name in self._topics if name not in partitions]
        if missing:
            return f"topics are missing: {', '.join(missing)}; create them with `nudge topics create`"
        expected = self._settings.partitions
        for name in self._topics:
            if BY_NAME[name].partitions == "events" and partitions[name] != expected:
                return (
                    f"topic {name} has {partitions[name]} partitions, NUDGE_PARTITIONS says {expected}: set it to the "
                    "number of partitions of `events`; the topics bound to `events` must have the same"
                )
        return None
