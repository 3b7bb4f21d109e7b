"""The check on skipped tests that CI makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.skips import main

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_runs"/>{more}</testsuite></testsuites>"""
SKIPPED = (
    '<testcase classname="tests.unit.test_a" name="test_b"><skipped type="pytest.skip" message="{reason}"/></testcase>'
)


def report(folder: Path, more: str = "") -> str:
    path = folder / "report.xml"
    path.write_text(REPORT.format(more=more))
    return str(path)


def test_a_run_without_skips_passes(tmp_path: Path) -> None:
    assert main([report(tmp_path)]) == 0


def test_data_that_is_not_in_the_repository_may_be_absent(tmp_path: Path) -> None:
    assert main([report(tmp_path, SKIPPED.format(reason="NUDGE_DATA is not set"))]) == 0


@pytest.mark.parametrize("reason", ["NUDGE_TEST_KAFKA is not set", "no wheel for this platform", ""])
def test_any_other_skip_fails_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str) -> None:
    assert main([report(tmp_path, SKIPPED.format(reason=reason))]) == 1
    assert f"tests.unit.test_a::test_b: {reason or 'no reason given'}" in capsys.readouterr().err


def test_a_report_in_which_nothing_ran_fails(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text("<testsuites><testsuite/></testsuites>")
    assert main([str(path)]) == 1


def test_no_report_fails() -> None:
    assert main([]) == 1
