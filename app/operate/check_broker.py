"""What the doctor asks the broker: whether it answers, how its topics are set up, what time it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence, Set
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.demo.reader import TopicReader
from app.operate.findings import Finding, Findings
from app.settings import Settings
from app.skew import SKEW_S_MAX, BrokerClock, Reading
from app.stream.started import started
from app.topics import IN_SYNC, IN_SYNC_MIN, MISSING, NoBroker, check_topics, listed
from schemas.topics import BY_NAME, CLOCK, EVENTS, TOPICS

SKEW_MS_MAX: Final = 5_000
LOOKS: Final = 5


async def check_broker(settings: Settings) -> tuple[Findings, set[str]]:
    """Whether anybody answers, and which topics there are."""
    try:
        names = set(await listed(settings.client_settings()))
    except NoBroker as exc:
        mend = "start it, or mend the address, the firewall or the credentials"
        return [Finding("broker", "fail", str(exc), mend)], set()
    return [Finding("broker", "ok", f"{settings.broker} answers and has {len(names)} topics")], names


async def check_topic_settings(settings: Settings) -> Findings:
    """Topics as the registry has them; what keeps erased data longer is a warning."""
    security = settings.client_settings()
    del security["bootstrap_servers"]
    problems = await check_topics(settings.broker, settings.partitions, **security)
    found = [Finding("topics", "fail", f"{each.topic}: {each.problem}", each.mend) for each in problems]
    missing = {each.topic for each in problems if each.problem == MISSING}
    actual = await _topic_configs(settings, [topic.name for topic in TOPICS if topic.name not in missing])
    for name, config in actual.items():
        found += longer_kept(name, config)
    found += judge_replicas(*await _replicas(settings, BY_NAME.keys()), actual)
    return found or [Finding("topics", "ok", "all topics are as they must be")]


def longer_kept(topic: str, actual: Mapping[str, str]) -> Findings:
    """Settings by which a topic keeps records longer than the registry says."""
    found = []
    for key, wanted in BY_NAME[topic].config().items():
        value = actual.get(key, "")
        if key.endswith(".ms"):
            why = "what was erased stays longer"
        elif key == "segment.bytes":
            why = "so much is read before a worker is ready"
        else:
            continue
        if value.lstrip("-").isdigit() and (int(value) > int(wanted) or (int(value) < 0 <= int(wanted))):
            says = f"{topic}: {key}={value}; {wanted} is meant: {why}"
            mend = f"kafka-configs --alter --topic {topic} --add-config {key}={wanted}"
            found.append(Finding("topics", "warn", says, mend))
    return found


def judge_replicas(brokers: int, replicas: Mapping[str, int], configs: Mapping[str, Mapping[str, str]]) -> Findings:
    """Topics that the loss of one broker would take away, or what was acknowledged on them.

    Parameters
    ----------
    replicas, configs
        Of each topic: the fewest replicas that a partition has, and its settings.
    """
    found = []
    wanted = min(3, brokers)
    if few := sorted(name for name, count in replicas.items() if count < wanted):
        says = f"fewer than {wanted} replicas, though there are {brokers} brokers: {', '.join(few)}"
        found.append(Finding("topics", "warn", says, "kafka-reassign-partitions, before one of the brokers is lost"))
    settings = {name: configs.get(name, {}).get(IN_SYNC) for name, count in replicas.items() if count >= 3}
    if weak := sorted(name for name, value in settings.items() if value == "1"):
        says = f"{IN_SYNC}=1, so what is acknowledged may stand on one broker only: {', '.join(weak)}"
        mend = f"kafka-configs --alter --topic TOPIC --add-config {IN_SYNC}={IN_SYNC_MIN}"
        found.append(Finding("topics", "warn", says, mend))
    return found


async def _replicas(settings: Settings, names: Set[str]) -> tuple[int, dict[str, int]]:
    """How many brokers there are, and of each of these topics the fewest replicas that a partition has."""
    async with started(AIOKafkaAdminClient(**settings.client_settings())) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        topics = [topic for topic in await admin.describe_topics() if topic["topic"] in names and topic["partitions"]]
    return brokers, {topic["topic"]: min(len(one["replicas"]) for one in topic["partitions"]) for topic in topics}


async def _topic_configs(settings: Settings, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """By topic; a broker that reports no configuration leaves it out."""
    if not names:
        return {}
    found: dict[str, dict[str, str]] = {}
    async with started(AIOKafkaAdminClient(**settings.client_settings())) as admin:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        for response in await admin.describe_configs(resources):
            for _code, _message, _kind, name, entries in response.resources:
                config = {key: value for key, value, *_ in entries if value is not None}
                if config:
                    found[name] = config
    return found


async def check_clock(settings: Settings) -> Findings:
    """Compare this machine's clock with the broker's, and with the newest timestamps in `events`: their producers'."""
    found = await _broker_clock(settings)
    newest_ms = await _newest_ms(settings)
    if newest_ms is None:
        return [*found, Finding("clock", "ok", "`events` is empty: no producer's clock to compare with")]
    return [*found, judge_clock(newest_ms, time.time_ns() // 1_000_000)]


async def _broker_clock(settings: Settings) -> Findings:
    config = await _topic_configs(settings, [CLOCK])
    if CLOCK not in config:  # a topic that is missing is told by another check
        return []
    async with BrokerClock(settings.client_settings()) as clock:
        return [judge_skew(await clock.best_of(LOOKS), stamps=settings.idempotent)]


def judge_skew(found: Reading | None, *, stamps: bool) -> Finding:
    """What a look at the broker's clock says.

    Parameters
    ----------
    stamps
        Whether this kind of broker can stamp records at all: Apache Kafka can, the embedded one cannot.
    """
    if found is None:
        if not stamps:
            return Finding("clock", "ok", "the embedded broker does not tell its time")
        mend = f"kafka-configs --alter --topic {CLOCK} --add-config message.timestamp.type=LogAppendTime"
        return Finding("clock", "warn", f"{CLOCK}: records are not stamped, so the broker's clock is unknown", mend)
    where = "ahead of" if found.ahead_s > 0 else "behind"
    says = f"this machine's clock is {abs(found.ahead_s):.3f} s {where} the broker's (± {found.error_s:.3f} s)"
    if abs(found.ahead_s) - found.error_s > SKEW_S_MAX:
        mend = "run NTP (chrony) here and on the brokers; see the runbook clock-skew"
        return Finding("clock", "warn", says, mend)
    return Finding("clock", "ok", says)


def judge_clock(newest_ms: int, now_ms: int) -> Finding:
    """What a newest record at `newest_ms` says about a clock that reads `now_ms`."""
    ahead_ms = newest_ms - now_ms
    if ahead_ms > SKEW_MS_MAX:
        says = f"the newest record of `events` is {ahead_ms / 1000:.0f} s in the future by this machine's clock"
        return Finding("clock", "warn", says, "run NTP (chrony) here, on the brokers and on the producers")
    return Finding("clock", "ok", f"the newest record of `events` is {-ahead_ms / 1000:.0f} s old")


async def _newest_ms(settings: Settings) -> int | None:
    security = settings.client_settings()
    bootstrap = security.pop("bootstrap_servers")
    async with asyncio.timeout(30), TopicReader(bootstrap, [EVENTS], **security) as reader:
        consumer = reader._consumer
        for tp, end in (await consumer.end_offsets(reader._partitions)).items():
            consumer.seek(tp, max(0, end - 1))
        newest: int | None = None
        while True:
            records = await reader.read(wait_ms=500)
            newest = max([record.timestamp for record in records] + ([] if newest is None else [newest]), default=None)
            if not records and await reader.at_end():
                return newest
