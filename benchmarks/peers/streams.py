"""Kafka Streams on the job: `kafka_streams/`, built by Maven."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.common import Result, run_command
from benchmarks.peers.environment import PeerUnavailable, built, checked

NAME: Final = "Kafka Streams (Java)"
HEAP_MB: Final = 1_024
_FOLDER: Final = Path(__file__).parent / "kafka_streams"
_POM: Final = _FOLDER / "pom.xml"
_SOURCES: Final = [_POM, *sorted(_FOLDER.rglob("*.java"))]


def measure(bootstrap: str, topic: str, count: int, users: int, *, timeout_s: float = 400.0) -> Result:
    """Process the `count` events that `topic` holds already, on real Kafka; the second half is measured.

    Raises
    ------
    PeerUnavailable
        Without Java, Maven, or a download.
    BenchmarkFailed
        When it ends early or does not finish.
    """
    java = shutil.which("java")
    if java is None:
        raise PeerUnavailable("no java on PATH")
    jars = built("kafka-streams", _SOURCES, _build) / "jars"
    warm_up = count // 2
    with tempfile.TemporaryDirectory(prefix="nudge-bench-streams-") as folder:
        command = [java, f"-Xmx{HEAP_MB}m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
        command += ["dev.nudge.bench.WindowedCount", bootstrap, topic, str(warm_up), str(count - warm_up), folder]
        return run_command(NAME, command, events=count - warm_up, users=users, timeout_s=timeout_s, report_option=())


def _build(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise PeerUnavailable("Maven (mvn) is not installed: it builds the peer the first time")
    jars = folder / "jars"
    goals = ["package", "dependency:copy-dependencies", f"-Doutput={folder / 'target'}", f"-DoutputDirectory={jars}"]
    checked([maven, "-B", "-q", "-f", str(_POM), *goals], "building with Maven")
    for jar in (folder / "target").glob("*.jar"):
        jar.rename(jars / jar.name)
