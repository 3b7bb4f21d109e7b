"""A pytest plugin that says which tests of a run really used Apache Kafka, and fails a run in which none did.

    pytest -p tests.support.kafka_usage -m kafka

A test that is marked `broker` but asks for the embedded broker passes beside a running Kafka without touching it, and
such a run would look like proof. What counts is that the fixture `kafka` gave the test its address.
"""

from __future__ import annotations

import pytest

FIXTURE = "kafka"
_MARK = ("broker", "Apache Kafka")
_used: set[str] = set()
_ran: set[str] = set()


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """Remember who was given Kafka's address; the report carries it out of a process of pytest-xdist."""
    if fixturedef.argname == FIXTURE:
        request.node.user_properties.append(_MARK)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Only a test whose body ran counts: a skip in the fixture is not a use."""
    if report.when == "call" and not report.skipped:
        _ran.add(report.nodeid)
        if any(tuple(found) == _MARK for found in report.user_properties):
            _used.add(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print both lists' sizes, and the tests that the Kafka of this run did not see."""
    others = sorted(_ran - _used)
    terminalreporter.section(f"on Apache Kafka: {len(_used)} tests; on none, or one of their own: {len(others)}")
    for name in others:
        terminalreporter.line(f"on none, or one of its own: {name}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No use at all is a failure; of one process among several it is not."""
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    if not _used and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
