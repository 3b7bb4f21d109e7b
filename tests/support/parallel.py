"""How `make test` runs in several processes (pytest-xdist): how many, which tests first, which Kafka is whose.

Most broker tests wait for child processes, so there are twice as many processes as cores. A run that names tests stays
in one process: to collect all of them in each would take longer than they do.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

_WORKER: Final = "PYTEST_XDIST_WORKER"
_PROCESSES_MAX: Final = 16


def number() -> int:
    """Which of the processes this is, from 0."""
    return int(os.environ.get(_WORKER, "gw0").removeprefix("gw"))


def kafka_address(addresses: str) -> str:
    """Ours, of the brokers that NUDGE_TEST_KAFKA lists: tests delete topics, so two processes cannot share one.

    Raises
    ------
    LookupError
        When there are more processes than brokers.
    """
    each = addresses.split()
    if number() >= len(each):
        raise LookupError(f"{number() + 1} processes or more, but NUDGE_TEST_KAFKA lists {len(each)} brokers: use -n")
    return each[number()]


def processes(*, names_tests: bool, brokers: int, cores: int) -> int:
    """How many processes `-n auto` means; 0 is this one alone."""
    if names_tests:
        return 0
    wanted = min(2 * cores, _PROCESSES_MAX)
    return min(wanted, brokers) if brokers else wanted


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Answer `-n auto`, unless the environment does."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    named = bool(config.option.keyword) or config.args_source is pytest.Config.ArgsSource.ARGS
    brokers = len(os.environ.get("NUDGE_TEST_KAFKA", "").split())
    return processes(names_tests=named, brokers=brokers, cores=os.cpu_count() or 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes the long tests come first, so that none of them is left alone at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    """By what a test waits for; the sort keeps the order within a rank."""
    folder = item.path.parent.name
    if folder == "chaos" or (item.get_closest_marker("broker") and item.get_closest_marker("slow")):
        return 0
    if item.get_closest_marker("broker"):
        return 1
    return 2 if folder in ("simulation", "property") else 3
