"""The packages of requirements.lock: names and pinned versions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements.lock"
EXCEPTIONS: Final = ROOT / ".ci" / "exceptions.toml"

_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")


def pins(lock: Path = LOCK) -> Iterator[tuple[str, str]]:
    """Name and version of each line; a name stands twice where a marker chooses."""
    for line in lock.read_text().splitlines():
        if match := _PIN.match(line):
            yield match[1].lower(), match[2]


def exceptions(kind: str, today: date, path: Path = EXCEPTIONS) -> dict[str, dict[str, Any]]:
    """What is tolerated, by its `id`: tables of `kind`, each with `id`, `reason` and `until`.

    Raises
    ------
    ValueError
        If one has no reason, or its day has passed: then somebody has to look at it again.
    """
    found = {}
    for entry in tomllib.loads(path.read_text()).get(kind, []):
        if not entry.get("reason", "").strip() or not isinstance(entry.get("until"), date):
            raise ValueError(f"{path.name}: {kind} {entry.get('id')}: give a reason and a date `until`")
        if entry["until"] < today:
            raise ValueError(f"{path.name}: {kind} {entry['id']}: tolerated until {entry['until']}: look at it again")
        found[entry["id"]] = entry
    return found
