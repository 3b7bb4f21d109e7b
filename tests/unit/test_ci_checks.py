"""The checks that CI makes on a built wheel and on a demo's summary."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support import summary, wheel

GOOD = {"events_in": 10, "users": 2, "decisions_sent": 3, "sends": 3, "lost": 0, "duplicates": 0}


def test_a_run_that_worked_and_lost_nothing_passes() -> None:
    assert summary.problems(GOOD) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"lost": 1}, "lost is 1, not 0"),
        ({"duplicates": 2}, "duplicates is 2, not 0"),
        ({"events_in": 0}, "events_in is 0: nothing happened"),
        ({"sends": 0}, "sends is 0: nothing happened"),
    ],
)
def test_a_loss_a_double_and_an_idle_run_are_named(change: dict[str, int], problem: str) -> None:
    assert summary.problems({**GOOD, **change}) == [problem]


def test_a_figure_that_was_not_counted_is_a_problem() -> None:
    assert summary.problems({key: value for key, value in GOOD.items() if key != "lost"}) == ["lost is missing"]


def build(folder: Path, *names: str) -> tuple[Path, Path]:
    """A wheel with `names`, and a source folder with one module a package."""
    source = folder / "source"
    for top in wheel.SHIPPED:
        (source / top).mkdir(parents=True)
        (source / top / "__init__.py").touch()
    path = folder / "it-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path, source


ALL = [f"{top}/__init__.py" for top in wheel.SHIPPED]


def test_a_whole_wheel_passes(tmp_path: Path) -> None:
    assert wheel.problems(*build(tmp_path, *ALL, "it-1.dist-info/METADATA")) == []


def test_a_module_that_was_left_out_is_named(tmp_path: Path) -> None:
    assert wheel.problems(*build(tmp_path, *ALL[1:])) == ["missing: app/__init__.py"]


def test_tests_may_not_be_installed(tmp_path: Path) -> None:
    assert wheel.problems(*build(tmp_path, *ALL, "tests/__init__.py")) == ["should not be installed: tests"]
