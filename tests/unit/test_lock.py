"""requirements.lock holds what pyproject.toml asks for: pinned, hashed, and from no particular index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = canonicalize_name(PROJECT["name"])
ASKED = [
    wanted
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in group
    if canonicalize_name((wanted := Requirement(line)).name) != OURS
]


def entries() -> list[tuple[str, list[str]]]:
    """Each requirement of the lock (without its line breaks) and its hashes."""
    joined = LOCK.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition("--hash")[0].strip(), re.findall(r"--hash=(\S+)", line)) for line in lines]


def pinned() -> dict[str, set[str]]:
    """Versions by name; there are two where a marker chooses."""
    found: dict[str, set[str]] = {}
    for text, _ in entries():
        requirement = Requirement(text)
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        found.setdefault(canonicalize_name(requirement.name), set()).add(specifier.version)
    return found


@pytest.mark.parametrize("wanted", ASKED, ids=lambda wanted: wanted.name)
def test_every_dependency_is_pinned_to_a_version_that_fits(wanted: Requirement) -> None:
    versions = pinned().get(canonicalize_name(wanted.name), set())
    assert versions, f"{wanted.name} is not in requirements.lock: run `make lock`"
    assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: {versions}: run `make lock`"


def test_every_pin_has_a_hash() -> None:
    assert all(hashes for _, hashes in entries())
    assert all(one.startswith("sha256:") for _, hashes in entries() for one in hashes)


def test_the_lock_names_no_index_and_no_path() -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links|(^|\s)-i\s|@ file|/home/|/root/", LOCK)
