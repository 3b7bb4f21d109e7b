"""What is wrong with an installation, and how to mend it. Nothing is changed; the broker is asked the time with empty
records.

A check is a function that gives findings; a check that raises is itself a finding, so that one broken thing does not
hide the others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from app.demo.reader import TopicReader
from app.learning.contract import BadModel
from app.learning.serving import read_scorer
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy
from app.policy_topic import read_log
from app.settings import DEV_SECRET, Settings
from app.skew import SKEW_S_MAX, BrokerClock, Reading
from app.stream.broadcast import read_to_end
from app.topics import check_topics
from schemas.models import BadSignature, ModelSnapshot, decode_snapshot
from schemas.topics import BY_NAME, CLOCK, DAY_MS, EVENTS, MODELS, TOPICS

Status = Literal["ok", "warn", "fail"]

PINNED: Final = {"faust-streaming": "0.15.3", "aiokafka": "0.14."}
"""Versions whose private attributes are used: any other is a risk (docs/adr/0002)."""
SECRET_CHARS_MIN: Final = 32
SECRET_BITS_MIN: Final = 96
DISK_BYTES_MIN: Final = 1 << 30
DISK_SHARE_LOW: Final = 0.15
FILES_MIN: Final = 4096
SKEW_MS_MAX: Final = 5_000
LOOKS: Final = 5
MODEL_AGE_MS_MAX: Final = DAY_MS


class Finding(msgspec.Struct, frozen=True):
    """What a check found; `mend` says what to do when all is not well."""

    check: str
    status: Status
    says: str
    mend: str = ""


Findings = list[Finding]


async def examine(settings: Settings) -> Findings:
    """Every check; those that need a broker are left out when none answers."""
    found = [
        *_guarded("versions", check_versions),
        *_guarded("secrets", lambda: check_secrets(settings)),
        *_guarded("addresses", lambda: check_addresses(settings)),
        *_guarded("disk", lambda: check_disk(settings.data_dir)),
        *_guarded("files", check_files),
        *_guarded("policy", lambda: check_policy_file(settings)),
    ]
    broker = await check_broker(settings)
    found += broker
    if all(finding.status != "fail" for finding in broker):
        checks = {"topics": check_topic_settings, "clock": check_clock, "policy": check_policy, "models": check_models}
        for name, check in checks.items():
            found += await _guarded_async(name, check(settings))
    return found


def _guarded(name: str, check: Callable[[], Findings]) -> Findings:
    try:
        return check()
    except Exception as exc:
        return [_broken(name, exc)]


async def _guarded_async(name: str, check: Awaitable[Findings]) -> Findings:
    try:
        return await check
    except Exception as exc:
        return [_broken(name, exc)]


def _broken(name: str, exc: Exception) -> Finding:
    return Finding(name, "fail", f"the check itself failed: {type(exc).__name__}: {exc}", "see the message")


def check_versions() -> Findings:
    """The interpreter, and libraries whose inner workings are relied upon."""
    found = [Finding("versions", "ok", f"nudge {version('nudge-engine')}, Python {sys.version.split()[0]}")]
    for package, wanted in PINNED.items():
        actual = version(package)
        if not actual.startswith(wanted):
            mend = f"pip install '{package}=={wanted}{'*' if wanted.endswith('.') else ''}'"
            found.append(Finding("versions", "fail", f"{package} {actual}; tested with {wanted}", mend))
    return found


def check_secrets(settings: Settings) -> Findings:
    """Long and random enough that nobody finds them by trying."""
    found = []
    mend = "set it to the output of `openssl rand -hex 32`, the same for all processes"
    secret = settings.secret.get_secret_value()
    if secret == DEV_SECRET:
        found.append(Finding("secrets", "warn", "NUDGE_SECRET is the one for development, which everybody knows", mend))
    else:
        found.append(_secret("NUDGE_SECRET", secret, mend))
    privacy = settings.privacy_secret.get_secret_value()
    if privacy:
        found.append(
            _secret("NUDGE_PRIVACY_SECRET", privacy, "it must not change once users were erased; choose it well")
        )
    else:
        says = "NUDGE_PRIVACY_SECRET is not set: NUDGE_SECRET recognises erased users and can never be changed"
        found.append(
            Finding("secrets", "warn", says, "set it before the first erasure, to NUDGE_SECRET if there was one")
        )
    for name in ("admin_token", "console_token"):
        token = getattr(settings, name).get_secret_value()
        if token:
            found.append(_secret(f"NUDGE_{name.upper()}", token, mend))
    return found


def _secret(name: str, value: str, mend: str) -> Finding:
    bits = entropy_bits(value)
    if len(value) >= SECRET_CHARS_MIN and bits >= SECRET_BITS_MIN:
        return Finding("secrets", "ok", f"{name} is long enough")
    return Finding("secrets", "fail", f"{name} is weak: {len(value)} characters, at most {bits:.0f} bits", mend)


def entropy_bits(text: str) -> float:
    """Shannon entropy of the text's own characters, times its length: an upper bound for what it may hide.

    Examples
    --------
    >>> entropy_bits("aaaa")
    0.0
    """
    counts = Counter(text)
    bits = -sum(count * math.log2(count / len(text)) for count in counts.values())
    return abs(bits)


def check_addresses(settings: Settings) -> Findings:
    """What is listened on, and whether it can be."""
    found = [_address("NUDGE_HTTP_HOST", settings.http_host), _address("NUDGE_CONSOLE_HOST", settings.console_host)]
    if settings.http_port:
        found.append(_port(settings.http_host, settings.http_port))
    plain = settings.security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT")
    if plain and not all(_is_local(server) for server in settings.broker.split(",")):
        says = f"NUDGE_SECURITY_PROTOCOL={settings.security_protocol}: events and decisions travel in clear"
        found.append(Finding("addresses", "warn", says, "use SSL or SASL_SSL, unless the network itself is encrypted"))
    return found


def _address(variable: str, host: str) -> Finding:
    if ipaddress.ip_address(host).is_loopback:
        return Finding("addresses", "ok", f"{variable}={host}")
    mend = "let nobody but the monitoring reach it (firewall, network policy): it has no password"
    return Finding("addresses", "warn", f"{variable}={host} can be reached from other machines", mend)


def _port(host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            says = f"port {port} on {host} cannot be taken: {exc.strerror}"
            return Finding("addresses", "warn", says, "fine if a nudge process has it; else set NUDGE_HTTP_PORT")
    return Finding("addresses", "ok", f"port {port} is free")


def _is_local(server: str) -> bool:
    host = server.strip().rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_disk(directory: Path) -> Findings:
    """Room for the row stores, and permission to write them."""
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    says = f"{usage.free / (1 << 30):.1f} GB of {usage.total / (1 << 30):.1f} GB free at {place}"
    mend = "make room, or set NUDGE_DATA_DIR to a larger disk: a worker that cannot write ends"
    if usage.free < DISK_BYTES_MIN:
        status: Status = "fail"
    else:
        status = "warn" if usage.free < DISK_SHARE_LOW * usage.total else "ok"
    found = [Finding("disk", status, says, "" if status == "ok" else mend)]
    if not _writable(place):
        found.append(
            Finding("disk", "fail", f"{place} cannot be written to", "give this user the right, or another folder")
        )
    return found


def _writable(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def check_files() -> Findings:
    """RocksDB keeps its files open, a few dozen for each partition."""
    import resource  # noqa: PLC0415 - absent on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_MIN:
        return [Finding("files", "ok", f"{soft} open files are allowed")]
    mend = f"ulimit -n {FILES_MIN} (at most {hard} here), or LimitNOFILE= in the unit file"
    return [Finding("files", "warn", f"only {soft} open files are allowed; many partitions need more", mend)]


def check_policy_file(settings: Settings) -> Findings:
    """The file that is in force until the topic has a version."""
    if settings.policy is None:
        return []
    try:
        plan = load_policy(settings.policy)
    except PolicyErrors as exc:
        return [Finding("policy", "fail", str(exc), f"mend {settings.policy}; `nudge policy validate` says more")]
    return [Finding("policy", "ok", f"{settings.policy} is valid, version {plan.version}")]


async def check_broker(settings: Settings) -> Findings:
    """Whether anybody answers."""
    admin = AIOKafkaAdminClient(request_timeout_ms=5_000, **settings.client_settings())
    try:
        await asyncio.wait_for(admin.start(), 15)
        topics = await admin.describe_topics()
    except (KafkaError, OSError, TimeoutError) as exc:
        says = f"no Kafka broker answers at {settings.broker} (NUDGE_BROKER): {type(exc).__name__}"
        return [Finding("broker", "fail", says, "start it, or mend the address, the firewall or the credentials")]
    finally:
        await admin.close()
    return [Finding("broker", "ok", f"{settings.broker} answers and has {len(topics)} topics")]


async def check_topic_settings(settings: Settings) -> Findings:
    """Topics as the registry has them; what keeps erased data longer is a warning."""
    security = settings.client_settings()
    del security["bootstrap_servers"]
    problems = await check_topics(settings.broker, settings.partitions, **security)
    found = [Finding("topics", "fail", f"{each.topic}: {each.problem}", each.mend) for each in problems]
    missing = {each.topic for each in problems}
    actual = await _topic_configs(settings, [topic.name for topic in TOPICS if topic.name not in missing])
    for name, config in actual.items():
        found += longer_kept(name, config)
    return found or [Finding("topics", "ok", "all topics are as they must be")]


def longer_kept(topic: str, actual: Mapping[str, str]) -> Findings:
    """Settings by which a topic keeps records longer than the registry says."""
    found = []
    for key, wanted in BY_NAME[topic].config().items():
        value = actual.get(key, "")
        if not key.endswith(".ms") or not value.lstrip("-").isdigit():
            continue
        if int(value) > int(wanted) or (int(value) < 0 <= int(wanted)):
            says = f"{topic}: {key}={value}; {wanted} is meant: what was erased stays longer"
            mend = f"kafka-configs --alter --topic {topic} --add-config {key}={wanted}"
            found.append(Finding("topics", "warn", says, mend))
    return found


async def _topic_configs(settings: Settings, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """By topic; a broker that reports no configuration leaves it out."""
    if not names:
        return {}
    admin = AIOKafkaAdminClient(**settings.client_settings())
    await admin.start()
    found: dict[str, dict[str, str]] = {}
    try:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        for response in await admin.describe_configs(resources):
            for _code, _message, _kind, name, entries in response.resources:
                config = {key: value for key, value, *_ in entries if value is not None}
                if config:
                    found[name] = config
    finally:
        await admin.close()
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


async def check_policy(settings: Settings) -> Findings:
    """The policies on the topic: signed with our key, and one of them the one we would serve."""
    log = await read_log(settings.client_settings(), settings.secret_bytes())
    names = log.names()
    if not names:
        if settings.policy is None:
            mend = "`nudge policy apply FILE`, or set NUDGE_POLICY"
            return [Finding("policy", "fail", "no policy on the topic that is signed with our key, and no file", mend)]
        return [Finding("policy", "ok", "no policy on the topic: the file is in force")]
    if settings.policy_name and settings.policy_name not in names:
        says = f"NUDGE_POLICY_NAME={settings.policy_name}, but the topic has {', '.join(names)}"
        return [Finding("policy", "fail", says, "mend the name, or apply that policy")]
    return [Finding("policy", "ok", f"on the topic: {', '.join(names)}")]


async def check_models(settings: Settings) -> Findings:
    """The newest snapshot of each model: ours, readable and fresh."""
    newest: dict[bytes, bytes] = {}

    def keep(key: bytes | None, value: bytes | None, _offset: int) -> None:
        if value is not None:
            newest[key or b""] = value

    await read_to_end(settings.client_settings(), MODELS, keep, 60.0)
    if not newest:
        return [Finding("models", "ok", "no snapshot yet: the prior is served until the learner publishes one")]
    now_ms = settings.make_clock().now_ms()
    return [judge_snapshot(value, settings.secret_bytes(), now_ms) for value in newest.values()]


def judge_snapshot(raw: bytes, secret: bytes, now_ms: int) -> Finding:
    """Whether a worker would serve this snapshot, and how old it is."""
    try:
        snapshot: ModelSnapshot = decode_snapshot(raw, secret)
        read_scorer(snapshot)
    except BadSignature as exc:
        mend = "give all processes the same NUDGE_SECRET; delete the key from `models` to start anew"
        return Finding("models", "fail", str(exc), mend)
    except (BadModel, msgspec.MsgspecError) as exc:
        return Finding("models", "fail", str(exc), "another version of nudge wrote it: run one version everywhere")
    age_ms = now_ms - snapshot.created_ms
    says = f"{snapshot.model}: version {snapshot.version}, {age_ms / 3_600_000:.1f} h old"
    if age_ms > MODEL_AGE_MS_MAX:
        mend = "is a worker running, and are there outcomes? See the runbook learner-stale"
        return Finding("models", "warn", says, mend)
    return Finding("models", "ok", says)
