"""What deploy/compose.yaml would start, as processes: whether its settings work together, where there is no Docker.

    python -m tests.support.compose [--seconds 20] [--prometheus PATH]

Kafka, topics, workers, sender, console and Prometheus run with the commands, variables and files that the compose file
gives them. Each service has a loopback address of its own in place of its name, so all keep their ports; what is
published, restarts, limits and Grafana are left out (of Grafana, the dashboard's queries are asked); the policy's
quiet hours are moved to where no user is, so that messages are sent at any time. Invented users then come by the
published listener, and Prometheus is asked what it saw. Exit code 1 when something is not as it must.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.children import Child
from tests.support.deploy import DEPLOY, ROOT, documents
from tests.support.kafka import kafka_jars

FILE: Final = DEPLOY / "compose.yaml"
PUBLISHED: Final = "127.0.0.1:9094"
"""Where Kafka tells clients on this machine to come to."""
TOPICS_S_MAX: Final = 60.0
SEEN_S_MAX: Final = 120.0
JOBS: Final = 3
"""Processes that Prometheus scrapes."""

_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Compose's ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``.

    Raises
    ------
    KeyError
        If a variable that must be set is not; with the file's message.
    """

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if kind == "?":
            raise KeyError(f"{name}: {rest}")
        return rest or ""

    return _VARIABLE.sub(value, text)


def properties(environment: Mapping[str, str]) -> dict[str, str]:
    """Kafka's configuration from the variables of its image: ``KAFKA_LOG_DIRS`` is ``log.dirs``."""
    given = {name: value for name, value in environment.items() if name != "KAFKA_HEAP_OPTS"}
    return {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given.items()}


def awake(policy: str, hour: int) -> str:
    """The policy with quiet hours that nobody between New York and Hawaii has when it is `hour` o'clock UTC."""
    quiet = f'{{start: "{(hour + 3) % 24:02}:00", end: "{(hour + 4) % 24:02}:00"}}'
    return re.sub(r"(?m)^(  quiet_hours:) \{.*\}", rf"\1 {quiet}", policy)


class Stack:
    """The services of a compose file on loopback addresses of their own."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self._variables = variables
        self._services: dict[str, Any] = documents(FILE)[0]["services"]
        net = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"  # beside other runs on this machine
        self._addresses = {name: f"{net}.{number}" for number, name in enumerate(self._services, 1)}
        self._children = ExitStack()

    def address(self, service: str, port: int) -> str:
        """Where a service listens."""
        return f"{self._addresses[service]}:{port}"

    def local(self, service: str, text: str) -> str:
        """The text with addresses in place of the services' names, of all addresses and of the service's own."""
        own = self._addresses[service]
        text = text.replace(PUBLISHED, f"{self._addresses['kafka']}:9094")
        names = "|".join(sorted(self._addresses, key=len, reverse=True))
        text = re.sub(rf"(?<![\w.-])({names})(?=:\d)", lambda match: self._addresses[match[1]], text)
        text = re.sub(r"://:(?=\d)", f"://{own}:", text)
        return re.sub(r"(?<![\w.-])(localhost|0\.0\.0\.0)(?![\w.])", own, text)

    def environment(self, service: str) -> dict[str, str]:
        """A service's variables, with files where they are on this machine."""
        values = {
            name: self.local(service, interpolated(str(value), self._variables))
            for name, value in self._services[service].get("environment", {}).items()
        }
        for volume in self._services[service].get("volumes", ()):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                place = str(self._mounted((DEPLOY / source).resolve()))
                values = {name: place if value == target else value for name, value in values.items()}
        return values

    def _mounted(self, file: Path) -> Path:
        """The file, or of the policy a copy with other quiet hours."""
        text = awake(file.read_text(), datetime.now(UTC).hour) if file.is_file() else ""
        if "quiet_hours:" not in text:
            return file
        copy = self.folder / file.name
        copy.write_text(text)
        return copy

    def start(self, service: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a process; it ends with the stack, in the reverse order."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **(environment or {})}
        child = Child(service, command, env=env, log_path=self.folder / f"{service}.log")
        self._children.callback(child.stop, grace_s=20.0)
        return child

    def start_kafka(self) -> None:
        """Format and start the broker."""
        environment = self.environment("kafka")
        data = self.folder / "kafka"
        given = properties(environment) | {"log.dirs": str(data)}
        config = self.folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        java = ["java", *environment["KAFKA_HEAP_OPTS"].split(), "-cp", f"{kafka_jars()}/*"]
        storage = ["kafka.tools.StorageTool", "format", "-t", "bnVkZ2UtY29tcG9zZS1ydQ", "-c", str(config)]
        subprocess.run([*java, *storage], check=True, capture_output=True)
        self.start("kafka", [*java, "kafka.Kafka", str(config)])

    def nudge(self, service: str, command: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
        """Command and variables of one of our services."""
        words = [str(word) for word in command or self._services[service]["command"]]
        data = self.folder / service
        data.mkdir(exist_ok=True)
        return [sys.executable, "-m", "app.cli", *words], self.environment(service) | {"NUDGE_DATA_DIR": str(data)}

    def create_topics(self) -> None:
        """As the service `topics` does, again until it has worked."""
        command, environment = self.nudge("topics")
        env = {"PATH": os.environ["PATH"]} | environment

        def created() -> bool:
            return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0

        wait_for("topics", TOPICS_S_MAX, created)

    def start_prometheus(self, binary: str) -> None:
        """Start it with the configuration of deploy/prometheus."""
        config, data = self.folder / "etc-prometheus", self.folder / "prometheus"
        shutil.copytree(DEPLOY / "prometheus", config)
        file = config / "prometheus.yml"
        file.write_text(self.local("prometheus", file.read_text()))
        words = [
            word.replace("/etc/prometheus", str(config)).replace("=/prometheus", f"={data}")
            for word in self._services["prometheus"]["command"]
        ]
        self.start("prometheus", [binary, *words, f"--web.listen-address={self.address('prometheus', 9090)}"])

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self._children.close()


def wait_for(what: str, seconds: float, done: Callable[[], bool]) -> None:
    """Return when `done()`; raises `TimeoutError` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)


class Prometheus:
    """The questions that are asked of it."""

    def __init__(self, address: str) -> None:
        self._base = f"http://{address}"

    def get(self, path: str, **query: str) -> Any:
        """The `data` of an answer."""
        url = f"{self._base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def targets_up(self) -> int:
        """How many processes answered the last scrape."""
        return sum(target["health"] == "up" for target in self.get("targets")["activeTargets"])

    def value(self, expression: str) -> float:
        """The sum of a query's values; 0 without any."""
        return sum(float(sample["value"][1]) for sample in self.get("query", query=expression)["result"])

    def by(self, label: str, expression: str) -> dict[str, float]:
        """A query's values by a label."""
        samples = self.get("query", query=expression)["result"]
        return {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in samples}

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


def panels() -> list[str]:
    """The dashboard's queries, for all instances and the last minute."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "nudge.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [
        query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$__all", ".*") for query in queries
    ]


def answers(url: str) -> bool:
    """Whether a GET gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def rehearse(stack: Stack, prometheus: str, seconds: float) -> dict[str, Any]:
    """Start everything, let users come, and say what was seen."""
    stack.start_kafka()
    stack.create_topics()
    for service in ("worker-1", "worker-2", "sender", "console"):
        stack.start(service, *stack.nudge(service))
    stack.start_prometheus(prometheus)
    for service in ("worker-1", "worker-2", "sender"):
        wait_for(service, 60.0, partial(answers, f"http://{stack.address(service, 6066)}/readyz"))
    # As the head of the compose file says, by the listener that is published.
    load = ["simulate", "--rate", "300", "--users", "300", "--seconds", str(seconds), "--answer"]
    command, _ = stack.nudge("console", load)
    env = {"PATH": os.environ["PATH"], "NUDGE_BROKER": stack.address("kafka", 9094), "NUDGE_PROFILE": "dev"}
    subprocess.run(command, env=env, check=True, capture_output=True)
    seen = Prometheus(stack.address("prometheus", 9090))
    sent = "sum(nudge_sends_total)"
    wait_for("sends in Prometheus", SEEN_S_MAX, lambda: seen.targets_up() == JOBS and seen.value(sent) > 0)
    wait_for("rules evaluated", SEEN_S_MAX, lambda: all(rule["health"] != "unknown" for rule in seen.rules()))
    results = [seen.get("query", query=query)["result"] for query in panels()]
    return {
        "targets_up": seen.targets_up(),
        "console": answers(f"http://{stack.address('console', 6080)}/livez"),
        "events_applied": seen.value('sum(nudge_events_total{outcome="applied"})'),
        "decisions": seen.value("sum(nudge_decisions_total)"),
        "decisions_by_reason": seen.by("reason", "sum by (reason) (nudge_decisions_total)"),
        "sends": seen.value(sent),
        "rules": len(seen.rules()),
        "rules_failing": [rule["name"] for rule in seen.rules() if rule["health"] != "ok"],
        "firing": sorted({rule["name"] for rule in seen.rules() if rule.get("state") == "firing"}),
        "panel_queries": len(results),
        "panel_queries_with_data": sum(bool(result) for result in results),
    }


def problems(found: Mapping[str, Any]) -> list[str]:
    """What is not as it must be."""
    bad = [f"{name} is {found[name]}" for name in ("events_applied", "decisions", "sends") if not found[name]]
    bad += [] if found["targets_up"] == JOBS else [f"{found['targets_up']} of {JOBS} processes are scraped"]
    bad += [] if found["console"] else ["the console does not answer"]
    return bad + [f"{name}: {found[name]}" for name in ("rules_failing", "firing") if found[name]]


def main(arguments: Sequence[str]) -> int:
    """Print what was seen as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.compose")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long users come")
    parser.add_argument("--prometheus", default=shutil.which("prometheus"), help="the program (Debian: prometheus)")
    parser.add_argument("--logs", type=Path, help="keep logs and data in this folder")
    options = parser.parse_args(arguments)
    if options.prometheus is None:
        parser.error("prometheus is not installed; give --prometheus PATH")
    variables = {"NUDGE_SECRET": secrets.token_hex(32), "NUDGE_CONSOLE_TOKEN": secrets.token_hex(16)}
    with ExitStack() as cleanup:
        folder = options.logs or Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="nudge-compose-")))
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        stack = cleanup.enter_context(Stack(folder.resolve(), variables))
        found = rehearse(stack, options.prometheus, options.seconds) | {"seconds": round(time.monotonic() - started)}
    print(json.dumps(found, indent=2))
    bad = problems(found)
    print("\n".join(bad), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
