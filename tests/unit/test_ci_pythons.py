"""Which Pythons are tested, and how one is found on a machine (.ci/python)."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def ci_python(*words: str, home: Path, path: str = "") -> list[str]:
    """What `.ci/python` prints, for somebody with this home and PATH; nothing when it fails."""
    environment = {"HOME": str(home), "PATH": f"{path}:/usr/bin:/bin", "HOMEBREW_PREFIX": str(home / "brew")}
    command = ["sh", ".ci/python", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def interpreter(path: Path, *, exits: int = 0) -> Path:
    """Something in an interpreter's place that says of itself that it is one (0), or fails as a shim does."""
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\nexit {exits}\n")
    path.chmod(0o755)
    return path


def test_the_oldest_that_is_tested_is_the_oldest_that_is_allowed_and_checked_for(tmp_path: Path) -> None:
    *_, oldest = versions = ci_python("versions", home=tmp_path)
    assert versions == sorted(versions, key=lambda version: int(version.partition(".")[2]), reverse=True)
    assert PYPROJECT["project"]["requires-python"] == f">={oldest}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_a_shim_that_fails_does_not_hide_the_interpreter_behind_it(tmp_path: Path) -> None:
    shim = interpreter(tmp_path / "shims" / "python3.97", exits=127)
    real = interpreter(tmp_path / "bin" / "python3.97")
    path = f"{shim.parent}:{real.parent}"
    assert ci_python("find", "3.98", "3.97", home=tmp_path, path=path) == [str(real)]
    assert ci_python("find", "3.97", home=tmp_path, path=str(shim.parent)) == []


def test_what_a_version_manager_has_installed_is_found_after_what_is_on_path(tmp_path: Path) -> None:
    kept = interpreter(tmp_path / ".pyenv" / "versions" / "3.98.1" / "bin" / "python3.98")
    assert ci_python("find", "3.98", "3.97", home=tmp_path) == [str(kept)]
    real = interpreter(tmp_path / "bin" / "python3.97")
    assert ci_python("find", "3.98", "3.97", home=tmp_path, path=str(real.parent)) == [str(real)]
