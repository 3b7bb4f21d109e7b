"""Releases of this repository as they are installed: a wheel of some commit, in an environment of its own.

Built and installed without a package index: by the setuptools of the running environment, whose libraries a build sees
too, after its own modules. So an older build runs with today's libraries.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.wheel import problems

ROOT: Final = Path(__file__).parents[2]
ROW: Final = "app/core/profile.py"
_VERSION: Final = "ROW_VERSION: Final = "
_BUILD: Final = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
_SHOW: Final = "import app; from app.core.profile import ROW_VERSION; print(app.__file__); print(ROW_VERSION)"


class NoHistory(RuntimeError):
    """The older commit is not here: a clone without history, or no git at all."""


@dataclass(frozen=True)
class Build:
    """An installed build: what it was made of, how its Python is called, and the version of the rows that it writes."""

    commit: str
    python: tuple[str, ...]
    row_version: int


def commit_of(name: str, root: Path = ROOT) -> str:
    """The commit that a tag, a branch or a hash names, in the repository at `root`.

    Raises
    ------
    NoHistory
        When it is not here.
    """
    return _git(root, "rev-parse", "--short", "--verify", f"{name}^{{commit}}")


def before_the_newest_rows(root: Path = ROOT) -> str:
    """The last commit whose rows have an older version than today's: the hardest build to come from.

    Raises
    ------
    NoHistory
        When the history does not reach that far.
    """
    changes = _git(root, "log", "--format=%h", f"-G^{_VERSION}", "--", ROW).split()
    for change in changes:
        before = commit_of(f"{change}^", root)  # a shallow clone's oldest commit has no parent
        if _version_at(before, root) != _version_at(change, root):
            return before
    raise NoHistory(f"the history holds no change of {_VERSION!r}")


def _version_at(commit: str, root: Path) -> str:
    """The row version in the sources of a commit. Raises `NoHistory` when it has no such file."""
    _, _, found = _git(root, "show", f"{commit}:{ROW}").partition(_VERSION)
    return found.partition("\n")[0]


def install(commit: str, folder: Path) -> Build:
    """Build and install a commit, or the files as they are now when it is empty.

    Raises
    ------
    NoHistory
        When the commit is not here.
    """
    source, environment = folder / "source", folder / "environment"
    source.mkdir(parents=True)
    _export(commit, source)
    clean = {name: value for name, value in os.environ.items() if name not in ("NUDGE_COMPILE", "PYTHONPATH")}
    built = _run([sys.executable, "-c", _BUILD, str(folder)], cwd=source, env=clean)
    wheel = folder / built.splitlines()[-1]
    assert not problems(wheel, source), problems(wheel, source)
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], cwd=folder, env=clean)
    site = environment / Path(sysconfig.get_paths()["purelib"]).relative_to(sys.prefix)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = (str(environment / "bin" / "python"), "-P")  # not what lies where it is started
    where, version = _run([*python, "-c", _SHOW], cwd=ROOT, env=clean).split()
    assert Path(where).is_relative_to(environment), f"{where} is not the build's own"
    return Build(commit or "the files as they are", python, int(version))


def _export(commit: str, target: Path) -> None:
    """What a commit holds; or what the working tree does, without what git ignores."""
    archive = target.parent / "source.tar"
    if commit:
        _git(ROOT, "archive", "--format=tar", f"--output={archive}", commit)
    else:
        names = _git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        with tarfile.open(archive, "w") as tar:
            for name in names:
                if (ROOT / name).is_file():
                    tar.add(ROOT / name, name)
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")


def _git(root: Path, *arguments: str) -> str:
    try:
        return _run(["git", *arguments], cwd=root, env=dict(os.environ)).strip()
    except (OSError, AssertionError) as exc:
        raise NoHistory(str(exc)) from None


def _run(command: Sequence[str], cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()[-2000:]}"
    return done.stdout
