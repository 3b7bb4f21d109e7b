"""A real Apache Kafka for tests: brokers that are their own controllers (KRaft), on loopback, in temporary folders.

The embedded broker differs from Kafka (docs/embedded-broker.md), so whatever is promised of Kafka is tested on Kafka:

    python -m tests.support.kafka [--brokers N] -- pytest -m kafka

starts a broker, or N that know nothing of each other, runs the command with NUDGE_TEST_KAFKA set to their addresses
(with spaces between) and exits with the command's code. Kafka comes from its Maven artifacts, once, into the user's
cache folder; `tests/support/kafka/pom.xml` names the version.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self
from xml.etree import ElementTree as ET

from app.children import Child
from app.embedded import HOST, cluster_id, free_port

ADDRESS_VARIABLE: Final = "NUDGE_TEST_KAFKA"
_HERE: Final = Path(__file__).parent / "kafka"
_POM: Final = _HERE / "pom.xml"
_JAVA_MIN: Final = 17
_POLL_S: Final = 0.1
_JVM_FOR_TESTS: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Up in a second, and two or three times as dear a request for ever after."""
_JVM_AS_SHIPPED: Final = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
)
"""As Kafka's own start script has it."""
_DOWNLOAD_S_MAX: Final = 900.0


class KafkaUnavailable(RuntimeError):
    """Apache Kafka cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Login:
    """A second listener, with TLS and a password (SCRAM-SHA-512): who may log in, and what the server shows.

    `certificate` is a PEM file with an unencrypted PKCS 8 key and the certificate chain.
    """

    user: str
    password: str
    certificate: Path


@dataclass(frozen=True)
class Seat:
    """A broker's place in a cluster.

    `node` counts from 1; `controllers` are the ports at which the nodes vote, in that order.
    """

    cluster: str
    node: int
    controllers: tuple[int, ...]

    @classmethod
    def alone(cls) -> Self:
        """The only one."""
        return cls.of_cluster(1)[0]

    @classmethod
    def of_cluster(cls, nodes: int) -> list[Self]:
        """All of a new cluster."""
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        controllers = tuple(free_port() for _ in range(nodes))
        return [cls(cluster, node, controllers) for node in range(1, nodes + 1)]

    @property
    def replicas(self) -> int:
        """How many brokers keep each partition."""
        return min(3, len(self.controllers))


class KafkaBroker:
    """Start, await, stop. A context manager.

    A broker that was stopped or killed and is started again has its address and its data: what a test of a broker's
    absence needs. `close` (or leaving the context) removes the data.

    Parameters
    ----------
    heap_mb
        The JVM's largest heap. 512 holds the test suites' topics.
    as_shipped
        The JVM's settings are those of Kafka's start script, for whoever measures; else such as start fast.
    advertised_port
        The loopback port that clients are sent to, such as a proxy's; the broker's own when 0.
    login
        A second listener, at `secure_bootstrap`.
    seat
        Its place among others; alone when None. One of several answers when most of them have been started.

    Raises
    ------
    KafkaUnavailable
        From `start`: no Java, no Maven, no download, or a broker that does not answer (with the end of its log).
    """

    def __init__(
        self,
        *,
        heap_mb: int = 512,
        as_shipped: bool = False,
        advertised_port: int = 0,
        login: Login | None = None,
        seat: Seat | None = None,
    ) -> None:
        self._heap_mb = heap_mb
        self._jvm = _JVM_AS_SHIPPED if as_shipped else _JVM_FOR_TESTS
        self._advertised_port = advertised_port
        self._login = login
        self._secure_port = 0
        self._folder: Path | None = None
        self._child: Child | None = None
        self.seat = seat or Seat.alone()
        self.port = 0

    @property
    def bootstrap(self) -> str:
        """What clients take as bootstrap server."""
        return f"{HOST}:{self.port}"

    @property
    def secure_bootstrap(self) -> str:
        """The listener with TLS and a password."""
        return f"{HOST}:{self._secure_port}"

    @property
    def child(self) -> Child:
        """The broker's process. Raises `RuntimeError` when it does not run."""
        if self._child is None:
            raise RuntimeError("the broker is not running")
        return self._child

    def start(self, timeout_s: float = 60.0) -> Self:
        """Return when the broker answers requests."""
        java = _java()
        jars = kafka_jars()
        if self._folder is None:
            self._folder = self._format(java, jars)
        options = [f"-Xms{self._heap_mb // 2}m", f"-Xmx{self._heap_mb}m", *self._jvm]
        logging = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
        command = [java, *options, logging, "-cp", f"{jars}/*", "kafka.Kafka", str(self._folder / "server.properties")]
        self._child = Child("kafka", command)
        deadline = time.monotonic() + timeout_s
        while cluster_id(self.port) != self.seat.cluster:  # any other answer is somebody else's, on our port
            if self._child.returncode is not None or time.monotonic() > deadline:
                words = self._child.log_tail()
                self.close()
                raise KafkaUnavailable(f"Apache Kafka did not answer on {self.bootstrap}; its last words:\n{words}")
            time.sleep(_POLL_S)
        return self

    def stop(self) -> None:
        """End the broker in order, keeping its data. Does nothing when it does not run."""
        if self._child is not None:
            self._child.stop(grace_s=20.0)
            self._child = None

    def kill(self) -> None:
        """End the broker at once (SIGKILL), keeping what reached its disk."""
        self.child.kill()
        self.stop()

    def close(self) -> None:
        """End the broker and remove its data."""
        if self._child is not None:
            self._child.kill()  # an orderly end would write data that goes the next moment
        self.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _format(self, java: str, jars: Path) -> Path:
        """Write the configuration and a formatted, empty data folder."""
        folder = Path(tempfile.mkdtemp(prefix="nudge-kafka-"))
        self.port = free_port()
        config = folder / "server.properties"
        text = server_properties(folder / "data", self.port, self.seat, self._advertised_port)
        if self._login is not None:
            self._secure_port = free_port()
            text = with_login(text, self._secure_port, self._login)
        config.write_text(text)
        tool = [java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", "kafka.tools.StorageTool"]
        arguments = ["format", f"--cluster-id={self.seat.cluster}", "-c", str(config)]  # one in 64 begins with a hyphen
        if self._login is not None:
            arguments += ["-S", f"SCRAM-SHA-512=[name={self._login.user},password={self._login.password}]"]
        done = subprocess.run([*tool, *arguments], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise KafkaUnavailable(f"could not format Kafka's storage:\n{done.stdout}{done.stderr}")
        return folder

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class KafkaCluster:
    """Brokers of one cluster, each of which may be killed and started again. A context manager.

    How many of them must have what a producer is told is written, a topic says for itself, as Kafka comes.
    """

    def __init__(self, nodes: int = 3, *, heap_mb: int = 256, as_shipped: bool = False) -> None:
        seats = Seat.of_cluster(nodes)
        self.replicas = seats[0].replicas
        self.brokers = {seat.node: KafkaBroker(heap_mb=heap_mb, as_shipped=as_shipped, seat=seat) for seat in seats}
        self._stack = contextlib.ExitStack()

    @property
    def bootstrap(self) -> str:
        """The addresses of all of them."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            start_together(list(self.brokers.values()), stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def server_properties(data: Path, port: int, seat: Seat, advertised_port: int = 0) -> str:
    """The configuration of a broker: internal topics fit the nodes that there are, nothing waits for company."""
    voters = ",".join(f"{node}@{HOST}:{voting}" for node, voting in enumerate(seat.controllers, 1))
    listeners = f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{seat.controllers[seat.node - 1]}"
    replicas, in_sync = str(seat.replicas), str(max(1, seat.replicas - 1))
    settings = {
        "process.roles": "broker,controller",
        "node.id": str(seat.node),
        "controller.quorum.voters": voters,
        "listeners": listeners,
        "advertised.listeners": f"PLAINTEXT://{HOST}:{advertised_port or port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        # Tests kill members and brokers: dead ones must be let go faster than in production.
        "group.min.session.timeout.ms": "1000",
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def with_login(properties: str, port: int, login: Login) -> str:
    """The configuration with a listener more."""
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    text = re.sub(r"^((advertised\.)?listeners=.*)", rf"\1,SECURE://{HOST}:{port}", properties, flags=re.MULTILINE)
    text = text.replace("security.protocol.map=", "security.protocol.map=SECURE:SASL_SSL,")
    settings = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "scram-sha-512.sasl.jaas.config": f"{module} required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": login.certificate,
    }
    return text + "".join(f"listener.name.secure.{name}={value}\n" for name, value in settings.items())


def kafka_jars() -> Path:
    """The folder of Kafka's jars in the user's cache, filled by Maven the first time (about 45 MB).

    Raises
    ------
    KafkaUnavailable
        When Maven is missing or cannot download.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nudge"
    wanted = cache / f"kafka-{kafka_version()}"
    if wanted.is_dir():
        return wanted
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable("Maven (mvn) is not installed: it downloads Apache Kafka the first time")
    cache.mkdir(parents=True, exist_ok=True)
    print(f"downloading Apache Kafka {kafka_version()} to {wanted}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".kafka-", dir=cache) as scratch:
        jars = Path(scratch) / "jars"
        command = [maven, "-B", "-q", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DOWNLOAD_S_MAX
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"Maven could not download Apache Kafka:\n{done.stdout}{done.stderr}")
        # A rename, so that nobody sees half a folder; another process may have won the race.
        with contextlib.suppress(OSError):
            jars.rename(wanted)
    if not wanted.is_dir():
        raise KafkaUnavailable(f"Maven left no jars in {wanted}")
    return wanted


def kafka_version() -> str:
    """The version that the pom names."""
    version = ET.parse(_POM).findtext(".//{*}properties/{*}kafka.version")
    assert version, f"{_POM} names no kafka.version"
    return version


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if java is None:
        raise KafkaUnavailable(f"Java {_JAVA_MIN} or later is not installed (no java on PATH, no JAVA_HOME)")
    # `-version` prints: openjdk version "17.0.15" 2025-04-15
    words = subprocess.run([java, "-version"], check=True, capture_output=True, text=True).stderr.split('"')
    major = words[1].partition(".")[0].partition("-")[0] if len(words) > 1 else ""
    if not major.isdigit() or int(major) < _JAVA_MIN:
        raise KafkaUnavailable(f"{java} is not Java {_JAVA_MIN} or later (it says {words[1:2] or 'nothing'})")
    return java


def _end(signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def main(arguments: list[str]) -> int:
    """Run a command beside brokers; give its exit code. Without Java or Maven: skipped, but an error in CI."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.kafka", description=main.__doc__)
    parser.add_argument("--brokers", type=int, default=1, metavar="N")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        try:
            addresses = " ".join(broker.bootstrap for broker in start_all(options.brokers, stack))
        except KafkaUnavailable as exc:
            in_ci = bool(os.environ.get("CI"))
            print(f"{'error' if in_ci else 'skipped'}: real Apache Kafka: {exc}", file=sys.stderr)
            return 1 if in_ci else 0
        took_s = time.monotonic() - started
        print(f"Apache Kafka {kafka_version()} on {addresses} after {took_s:.1f} s", file=sys.stderr, flush=True)
        return _run(options.command, os.environ | {ADDRESS_VARIABLE: addresses})


def start_all(count: int, stack: contextlib.ExitStack) -> list[KafkaBroker]:
    """Brokers that know nothing of each other; the stack ends them."""
    brokers = [KafkaBroker() for _ in range(count)]
    start_together(brokers, stack)
    return brokers


def start_together(brokers: Sequence[KafkaBroker], stack: contextlib.ExitStack) -> None:
    """Start brokers at the same time; the stack ends them."""
    kafka_jars()  # once, not by each of them
    pool = stack.enter_context(ThreadPoolExecutor(len(brokers)))  # stays: a child ends with the thread that started it
    for broker in brokers:
        stack.enter_context(contextlib.closing(broker))
    list(pool.map(KafkaBroker.start, brokers))


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Give a command's exit code; it ends with us."""
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
