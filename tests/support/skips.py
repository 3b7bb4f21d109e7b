"""In CI a test that was skipped did not run, so it fails the run unless its reason is one that CI cannot mend.

    python -m tests.support.skips JUNIT_XML [JUNIT_XML ...]

The one such reason is data that is not part of the repository: tests on it name NUDGE_DATA.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

ALLOWED: Final = ("NUDGE_DATA",)


def skipped(report: Path) -> Iterator[tuple[str, str]]:
    """Test and reason of each test that pytest's JUnit report says was skipped (or was expected to fail)."""
    for case in ET.parse(report).iter("testcase"):
        for mark in case.iter("skipped"):
            yield f"{case.get('classname')}::{case.get('name')}", mark.get("message") or "no reason given"


def unexpected(report: Path) -> list[str]:
    """The skips of a report that CI must not accept, each with its reason."""
    return [f"{test}: {reason}" for test, reason in skipped(report) if not any(word in reason for word in ALLOWED)]


def tests_run(report: Path) -> int:
    """How many tests of a report were not skipped."""
    return sum(1 for _ in ET.parse(report).iter("testcase")) - sum(1 for _ in skipped(report))


def main(reports: Sequence[str]) -> int:
    """Print what was skipped without a good reason; 1 when there is any, or when a report holds no test that ran."""
    bad = []
    for report in map(Path, reports):
        bad += unexpected(report)
        if not tests_run(report):
            bad.append(f"{report.name}: no test ran")
    for line in bad:
        print(f"unexpected skip: {line}", file=sys.stderr)
    return 1 if bad or not reports else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
