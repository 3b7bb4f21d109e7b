"""Which build an upgrade begins with; `python -m tests.chaos upgrade` installs and runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.builds import ROW, NoHistory, before_the_newest_rows, commit_of


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *who, *arguments], cwd=root, env=clean, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Row versions of the commits: 1, 1, 2 (another line), 2 (moved), 2."""
    root = tmp_path / "repository"
    (root / ROW).parent.mkdir(parents=True)
    git(tmp_path, "init", "-q", str(root))
    versions = ("ROW_VERSION: Final = 1\n", "ROW_VERSION: Final = 1\na = 1\n", "ROW_VERSION: Final = 2\na = 1\n")
    for number, text in enumerate((*versions, "a = 1\nROW_VERSION: Final = 2\n", "b = 1\nROW_VERSION: Final = 2\n")):
        (root / ROW).write_text(text)
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", str(number))
    return root


def test_an_upgrade_begins_with_the_last_commit_that_wrote_older_rows(history: Path) -> None:
    found = before_the_newest_rows(history)
    assert git(history, "log", "-1", "--format=%s", found) == "1"


def test_a_clone_without_history_says_so(history: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{history}", str(shallow))
    with pytest.raises(NoHistory):
        before_the_newest_rows(shallow)
    with pytest.raises(NoHistory):
        commit_of("HEAD~2", shallow)


def test_a_folder_that_is_no_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoHistory):
        commit_of("HEAD", tmp_path)
