"""How a test run is spread over processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.embedded import free_port, is_free
from tests.support import parallel

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("names_tests", "brokers", "cores", "expected"),
    [
        (False, 0, 2, 4),
        (False, 0, 64, 16),
        (False, 3, 2, 3),  # a process without a Kafka of its own would fail
        (False, 3, 1, 2),
        (True, 0, 8, 0),
        (True, 3, 8, 0),
    ],
)
def test_there_are_two_processes_a_core_but_no_more_than_brokers_and_one_for_few_tests(
    names_tests: bool, brokers: int, cores: int, expected: int
) -> None:
    assert parallel.processes(names_tests=names_tests, brokers=brokers, cores=cores) == expected


def test_each_process_has_a_kafka_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert parallel.kafka_address("one:1 two:2") == "two:2"
    with pytest.raises(LookupError, match="2 processes or more, but NUDGE_TEST_KAFKA lists 1"):
        parallel.kafka_address("one:1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    assert parallel.kafka_address("one:1") == "one:1"


def test_ports_that_were_given_out_are_different_and_free() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert all(is_free(port) for port in ports)
    assert max(ports) < 32_768, "outgoing connections must not take them meanwhile"


SUITE = """
import pytest
@pytest.fixture
def kafka():
    return "host:1"
def test_uses_it(kafka): pass
def test_does_not(): pass
"""


def run_beside_kafka(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), str(folder)]
    return subprocess.run(
        [*command, "-p", "tests.support.kafka_usage", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_summary_counts_the_tests_that_kafka_saw_in_other_processes(tmp_path: Path) -> None:
    result = run_beside_kafka(tmp_path, "-n", "1")
    assert result.returncode == 0, result.stdout
    assert "on Apache Kafka: 1 tests; on none, or one of their own: 1" in result.stdout


def test_a_run_whose_tests_did_not_use_kafka_fails(tmp_path: Path) -> None:
    result = run_beside_kafka(tmp_path, "-k", "test_does_not")
    assert result.returncode == 1, result.stdout
    assert "1 passed" in result.stdout
