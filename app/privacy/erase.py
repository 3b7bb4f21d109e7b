"""Asking for the erasure of users, and reading the receipts."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer

from app.stream.broadcast import BroadcastReader
from app.stream.started import started
from schemas.erasures import PARTS, ErasureReceipt, Subjects, decode_receipt
from schemas.events import USER_CHARS_MAX, encode_event
from schemas.topics import BY_NAME, DAY_MS, ERASURES, EVENTS, TOPICS

LOG_TOPICS: Final = tuple(one.name for one in TOPICS if one.cleanup == "delete" and one.key not in ("model", "none"))
"""Logs that name users. Kafka cannot delete single records of a log: they leave by retention."""


@dataclass
class Erasing:
    """A request, and the receipts that have come in, by part."""

    user: str
    request: str
    receipts: dict[str, ErasureReceipt] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether every part has reported."""
        return set(self.receipts) == set(PARTS)


def logs_gone_ms(wall_ms: int) -> int:
    """When the last record that was written about a user until `wall_ms` has left the logs (wall clock, ms).

    Kafka deletes whole segments: one that is rolled daily holds its oldest record a day longer than its newest.
    """
    return wall_ms + max(BY_NAME[name].retention_ms for name in LOG_TOPICS) + DAY_MS


async def request_erasure(
    client_settings: Mapping[str, Any], subjects: Subjects, users: Sequence[str], *, aliases: bool, idempotent: bool
) -> list[Erasing]:
    """Write the requests to `events`; returns when the broker has acknowledged them.

    Parameters
    ----------
    client_settings
        Connection settings for aiokafka's clients.
    aliases
        Erase the ids, too, that the users' rows name as their earlier ones.

    Raises
    ------
    ValueError
        When a user's id cannot be one.
    aiokafka.errors.KafkaError
        When the broker refuses or is not there. Asking again does no harm.
    """
    for user in users:
        if not 0 < len(user) <= USER_CHARS_MAX:
            raise ValueError(f"a user id has 1 to {USER_CHARS_MAX} characters, not {len(user)}")
    erasings = [Erasing(user, f"erase-{uuid.uuid4()}") for user in users]
    producer = AIOKafkaProducer(acks="all", enable_idempotence=idempotent, **client_settings)
    async with started(producer):
        # The default partitioner is murmur2 of the key, as the user's own events must have it.
        pending = [
            await producer.send(
                EVENTS,
                encode_event(subjects.request(erasing.user, erasing.request, aliases=aliases)),
                key=erasing.user.encode(),
            )
            for erasing in erasings
        ]
        await asyncio.gather(*pending)
    return erasings


class ReceiptBook:
    """Receipts of some users, kept up to date from the topic while it is open."""

    def __init__(self, client_settings: Mapping[str, Any], subjects: Subjects, erasings: Sequence[Erasing]) -> None:
        self._erasings = {subjects.of(erasing.user.encode()).hex(): erasing for erasing in erasings}
        self._everybody = asyncio.Event()
        self._reader = BroadcastReader(client_settings, ERASURES, self._apply)

    def _apply(self, _key: bytes | None, value: bytes | None, _offset: int) -> None:
        try:
            receipt = decode_receipt(value or b"")
        except msgspec.MsgspecError:
            return
        erasing = self._erasings.get(receipt.subject)
        if erasing is not None and erasing.request in ("", receipt.request):
            erasing.receipts[receipt.part] = receipt
            if all(erasing.done for erasing in self._erasings.values()):
                self._everybody.set()

    async def read(self, wait_s: float = 0.0) -> bool:
        """Read the topic to its end, then wait at most `wait_s` until every part of every request has reported.

        Returns
        -------
        bool
            Whether they have.

        Raises
        ------
        TimeoutError
            When the topic cannot be read at all.
        """
        try:
            await self._reader.start()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._everybody.wait(), wait_s)
            return self._everybody.is_set()
        finally:
            await self._reader.stop()
