"""Check the summary of a demo run: work was done, nothing was lost, nothing was doubled.

python -m tests.support.summary SUMMARY_JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

MUST_BE_ZERO: Final = ("lost", "duplicates")
# A run that did nothing loses nothing either.
MUST_BE_POSITIVE: Final = ("events_in", "users", "decisions_sent", "sends")


def problems(summary: Mapping[str, Any]) -> list[str]:
    """What is wrong with a demo's summary."""
    found = [f"{key} is missing" for key in (*MUST_BE_ZERO, *MUST_BE_POSITIVE) if key not in summary]
    found += [f"{key} is {summary[key]}, not 0" for key in MUST_BE_ZERO if summary.get(key, 0) != 0]
    found += [f"{key} is {summary[key]}: nothing happened" for key in MUST_BE_POSITIVE if not summary.get(key, 1) > 0]
    return found


def main(path: str) -> int:
    """Print the problems, or the figures when there are none."""
    summary = json.loads(Path(path).read_text())
    found = problems(summary)
    for line in found:
        print(f"demo: {line}", file=sys.stderr)
    if not found:
        print(", ".join(f"{key} {summary[key]}" for key in (*MUST_BE_POSITIVE, *MUST_BE_ZERO)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
