"""Create and check the topics of the registry on a broker.

Neither ever alters a topic that exists: the number of partitions decides where a user's row lives, so a wrong one is
reported for the operator to mend, not mended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from app.stream.started import started
from schemas.topics import TOPICS, Topic

_TOPIC_EXISTS: Final = 36
_LISTED_S_MAX: Final = 30.0
_POLL_S: Final = 0.05
MISSING: Final = "missing"
_NOT_SHORTER: Final = ("retention.ms", "min.compaction.lag.ms")
_STAMP: Final = "message.timestamp.type"
IN_SYNC: Final = "min.insync.replicas"
IN_SYNC_MIN: Final = "2"
"""Of three replicas or more. Kafka's own default is 1: then an acknowledged record may stand on a single broker, and
end with it.
"""


class Problem(msgspec.Struct, frozen=True):
    """A topic that is not as the registry says, what is wrong with it, and how to mend it."""

    topic: str
    problem: str
    mend: str


class NoBroker(RuntimeError):
    """Nobody answers where the settings say that a broker is."""


class TopicRefused(RuntimeError):
    """The broker refused to create a topic."""


def partitions_of(topic: Topic, partitions: int) -> int:
    """How many partitions `topic` must have where `events` has `partitions`."""
    return partitions if topic.partitions == "events" else topic.partitions


async def listed(client_settings: Mapping[str, Any], *, timeout_s: float = 15.0) -> dict[str, int]:
    """The broker's topics, and how many partitions each has.

    Raises
    ------
    NoBroker
        Naming the address, the setting and what went wrong.
    """
    admin = AIOKafkaAdminClient(request_timeout_ms=5_000, **client_settings)
    try:
        await asyncio.wait_for(admin.start(), timeout_s)
        return {found["topic"]: len(found["partitions"]) for found in await admin.describe_topics()}
    except (KafkaError, OSError, TimeoutError) as exc:
        address = client_settings["bootstrap_servers"]
        raise NoBroker(f"no Kafka broker answers at {address} (NUDGE_BROKER): {type(exc).__name__}") from exc
    finally:
        await admin.close()


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
    replication
        Of three or more two must have what is acknowledged.
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
        in_sync = {IN_SYNC: IN_SYNC_MIN} if replication >= 3 else {}
        wanted = [
            NewTopic(topic.name, partitions_of(topic, partitions), replication, topic_configs=topic.config() | in_sync)
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
        configs = await _configs(admin, [topic.name for topic in topics if topic.name in found])
    expected = partitions if partitions is not None else found.get("events", 1)
    problems: list[Problem] = []
    for topic in topics:
        problems += _problems_of(topic, partitions_of(topic, expected), found.get(topic.name))
        problems += problems_of_config(topic, configs.get(topic.name, {}))
    return problems


def _problems_of(topic: Topic, expected: int, actual: int | None) -> list[Problem]:
    if actual is None:
        return [Problem(topic.name, MISSING, "run `nudge topics create`")]
    if actual != expected:
        mend = "delete and create it, or give NUDGE_PARTITIONS the number that `events` has"
        return [Problem(topic.name, f"{actual} partitions; expected {expected}", mend)]
    return []


def problems_of_config(topic: Topic, actual: Mapping[str, str]) -> list[Problem]:
    """Settings by which a topic would lose what is counted on: another clean-up, or one that comes too soon.

    Longer is no problem here; `nudge doctor` warns of what keeps erased data. A setting that the broker does not report
    is taken for right.
    """
    wanted = topic.config()
    cleanup = actual.get("cleanup.policy")
    if cleanup is not None and cleanup != topic.cleanup:  # all else follows from it
        return [_problem(topic, "cleanup.policy", cleanup, f"expected {topic.cleanup}", topic.cleanup)]
    found = [
        _problem(topic, key, given, f"expected {wanted[key]} or more", wanted[key])
        for key in _NOT_SHORTER
        if key in wanted and (given := actual.get(key, "")).lstrip("-").isdigit() and _shorter(given, wanted[key])
    ]
    stamp = actual.get(_STAMP, wanted.get(_STAMP))
    if _STAMP in wanted and stamp != wanted[_STAMP]:
        found.append(_problem(topic, _STAMP, str(stamp), f"expected {wanted[_STAMP]}", wanted[_STAMP]))
    return found


def _shorter(given: str, wanted: str) -> bool:
    """Of two times, where a negative one is for ever."""
    return int(given) >= 0 and (int(wanted) < 0 or int(given) < int(wanted))


def _problem(topic: Topic, key: str, given: str, expected: str, value: str) -> Problem:
    mend = f"kafka-configs --alter --topic {topic.name} --add-config {key}={value}"
    return Problem(topic.name, f"{key} is {given}; {expected}", mend)


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """By topic; a broker that reports no configuration (the embedded one, of some topics) leaves it out."""
    if not names:
        return {}
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for _code, _message, _kind, name, entries in response.resources:
            found[name] = {key: value for key, value, *_ in entries if value is not None}
    return found


def _admin(bootstrap: str, security: dict[str, Any]) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    return started(AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="nudge-topics", **security))
