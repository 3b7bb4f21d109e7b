"""The command line's side of the `policy` topic: read it whole, publish a version, see what `events` holds for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from app.policy.versions import PolicyLog
from app.stream.broadcast import read_to_end
from app.stream.history import HistoryReader
from app.stream.started import started
from app.topics import TopicRefused
from app.whole_topic import read_newest
from schemas.events import Event, decode_event
from schemas.policies import PolicyVersion, encode_policy_version, head_key, history_key
from schemas.topics import EVENTS, POLICY

VALUE_BYTES_MAX: Final = 900_000
"""Kafka refuses a record of more than a megabyte, unless it is told otherwise."""

NEWEST_OF_A_PARTITION: Final = 2_000
"""Events that are looked at for their names: enough to meet what happens to one user in a hundred."""
_READ_S_MAX: Final = 20.0


class NotPublished(RuntimeError):
    """The version is not in force; the message says why."""


async def read_log(settings: Mapping[str, Any], secret: bytes) -> PolicyLog:
    """Everything that the topic holds now. Raises `TopicRefused` when there is no such topic."""
    found = PolicyLog(secret)
    try:
        await read_to_end(settings, POLICY, found.apply, _READ_S_MAX)
    except TimeoutError as exc:
        raise TopicRefused(f"{exc}; is it there? `nudge topics create` makes it") from None
    return found


async def publish(settings: Mapping[str, Any], secret: bytes, version: PolicyVersion, *, idempotent: bool) -> None:
    """Put a version into force: first its history, then the head.

    Raises
    ------
    NotPublished
        When it is too large, or when somebody else applied one at the same time and theirs came last.
    """
    value = encode_policy_version(version, secret)
    if len(value) > VALUE_BYTES_MAX:
        raise NotPublished(f"the policy is too large: {len(value)} bytes as a record; at most {VALUE_BYTES_MAX}")
    producer = AIOKafkaProducer(acks="all", enable_idempotence=idempotent, **settings)
    async with started(producer):
        await producer.send_and_wait(POLICY, value, key=history_key(version.policy, version.serial))
        await producer.send_and_wait(POLICY, value, key=head_key(version.policy))
        known = await read_log(settings, secret)
        for key in known.expired(version.policy):
            await producer.send_and_wait(POLICY, None, key=key)
    head = known.head(version.policy)
    if head is None or encode_policy_version(head, secret) != value:
        by = f" by {head.author}" if head is not None else ""
        raise NotPublished(f"another version was applied{by} at the same time and is in force; apply again if need be")


async def retained_since_ms(settings: Mapping[str, Any], topic: str, partitions: int) -> int | None:
    """From when on every partition of the topic is whole (wall ms).

    Returns
    -------
    int or None
        The latest beginning of any partition whose beginning was deleted; None when nothing was.
    """
    begins: list[int] = []
    for partition in range(partitions):
        async with HistoryReader(settings, topic, partition) as reader:
            first = await reader.peek()
        if first is not None and first[0] > 0:
            begins.append(first[1])
    return max(begins, default=None)


def newest_names(settings: Mapping[str, Any]) -> Counter[str]:
    """How often each event name is among the newest events. Raises `aiokafka.errors.KafkaError`."""
    names: Counter[str] = Counter()
    for records in read_newest(settings, EVENTS, NEWEST_OF_A_PARTITION):
        for record in records:
            event = decode_event(record.value, record.key)
            if isinstance(event, Event) and event.event:
                names[event.event] += 1
    return names
