"""A pytest plugin that says which tests of a run really used Apache Kafka, and fails a run in which none did.

    pytest -p tests.support.kafka_usage -m kafka

A test that is marked `broker` but asks for the embedded broker passes beside a running Kafka without touching it, and
such a run would look like proof. What counts is that the fixture `kafka` gave the test its address.
"""

from __future__ import annotations

import pytest

FIXTURE = "kafka"
_used: set[str] = set()
_ran: set[str] = set()


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """Remember who was given Kafka's address."""
    if fixturedef.argname == FIXTURE:
        _used.add(request.node.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Only a test whose body ran counts: a skip in the fixture is not a use."""
    if report.when == "call" and not report.skipped:
        _ran.add(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print both lists' sizes, and the tests that Kafka did not see."""
    others = sorted(_ran - _used)
    terminalreporter.section(f"on Apache Kafka: {len(_ran & _used)} tests; on the embedded broker only: {len(others)}")
    for name in others:
        terminalreporter.line(f"not on Apache Kafka: {name}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No use at all is a failure."""
    if not session.config.option.collectonly and not _ran & _used and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
