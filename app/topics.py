"""Create and check the topics of the registry on a broker.

Neither ever alters a topic that exists: the number of partitions decides where a user's row lives, so a wrong one is
reported for the operator to mend, not mended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from schemas.topics import TOPICS, Topic

_TOPIC_EXISTS: Final = 36
_LISTED_S_MAX: Final = 30.0
_POLL_S: Final = 0.05


class Problem(msgspec.Struct, frozen=True):
    """A topic that is not as the registry says, what is wrong with it, and how to mend it."""

    topic: str
    problem: str
    mend: str


class TopicRefused(RuntimeError):
    """The broker refused to create a topic."""


def partitions_of(topic: Topic, partitions: int) -> int:
    """How many partitions `topic` must have where `events` has `partitions`."""
    return partitions if topic.partitions == "events" else topic.partitions


async def create_topics(
    bootstrap: str,
    partitions: int,
    replication: int = 1,
    *,
    topics: Sequence[Topic] = TOPICS,
    **security: Any,
) -> list[str]:
    """Create the topics that are missing, and return when the broker lists them; one that exists is left as it is.

    Parameters
    ----------
    partitions
        Of `events` and every topic that must have as many.
    security
        Passed to aiokafka: `security_protocol`, `ssl_context`, `sasl_*`.

    Returns
    -------
    list[str]
        Names of the topics that were created now.

    Raises
    ------
    TopicRefused
        With the topic and the broker's reason, or when a created topic is not listed in time.
    aiokafka.errors.KafkaConnectionError
        When no broker can be reached.
    """
    async with _admin(bootstrap, security) as admin:
        present = {found["topic"] for found in await admin.describe_topics()}
        wanted = [
            NewTopic(topic.name, partitions_of(topic, partitions), replication, topic_configs=topic.config())
            for topic in topics
            if topic.name not in present
        ]
        if not wanted:
            return []
        created = _created(await admin.create_topics(wanted))
        await _await_listed(admin, set(created))
    return created


def _created(response: Any) -> list[str]:
    created = []
    for name, code, *message in response.topic_errors:
        if code == 0:
            created.append(name)
        elif code != _TOPIC_EXISTS:  # another process may have created it meanwhile
            raise TopicRefused(f"topic {name!r}: {message[0] if message and message[0] else for_code(code).__name__}")
    return created


async def _await_listed(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Kafka answers when the controller has the topics; a broker lists them when it has made their logs, up to
    1.4 s later for the registry at 16 partitions. A worker that started in between would find its topics missing.
    """
    deadline = time.monotonic() + _LISTED_S_MAX
    while unseen := names - {found["topic"] for found in await admin.describe_topics()}:
        if time.monotonic() > deadline:
            raise TopicRefused(f"created, but not listed after {_LISTED_S_MAX:.0f} s: {', '.join(sorted(unseen))}")
        await asyncio.sleep(_POLL_S)


async def check_topics(
    bootstrap: str,
    partitions: int | None = None,
    *,
    topics: Sequence[Topic] = TOPICS,
    **security: Any,
) -> list[Problem]:
    """Compare the broker's topics with the registry; an empty list says that all is well.

    Parameters
    ----------
    partitions
        What `events` must have; when None, what it has, so that the other topics are compared with it.
    """
    async with _admin(bootstrap, security) as admin:
        # Asking for topics by name would create them on a broker that creates topics on demand.
        found = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        policies = await _cleanup_policies(admin, [topic.name for topic in topics if topic.name in found])
    expected = partitions if partitions is not None else found.get("events", 1)
    problems: list[Problem] = []
    for topic in topics:
        problems += _problems_of(topic, partitions_of(topic, expected), found.get(topic.name), policies.get(topic.name))
    return problems


def _problems_of(topic: Topic, expected: int, actual: int | None, cleanup: str | None) -> list[Problem]:
    if actual is None:
        return [Problem(topic.name, "missing", "run `nudge topics create`")]
    problems = []
    if actual != expected:
        mend = "delete and create it, or give NUDGE_PARTITIONS the number that `events` has"
        problems.append(Problem(topic.name, f"{actual} partitions; expected {expected}", mend))
    if cleanup is not None and cleanup != topic.cleanup:
        mend = f"kafka-configs --alter --topic {topic.name} --add-config cleanup.policy={topic.cleanup}"
        problems.append(Problem(topic.name, f"cleanup.policy is {cleanup}; expected {topic.cleanup}", mend))
    return problems


async def _cleanup_policies(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, str]:
    """By topic; a broker that reports no configuration (the embedded one, of some topics) leaves it out."""
    if not names:
        return {}
    policies = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for _code, _message, _kind, name, entries in response.resources:
            for key, value, *_ in entries:
                if key == "cleanup.policy" and value is not None:
                    policies[name] = value
    return policies


@asynccontextmanager
async def _admin(bootstrap: str, security: dict[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="nudge-topics", **security)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
