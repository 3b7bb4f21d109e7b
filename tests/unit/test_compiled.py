"""The compiled core: which modules, and that nobody runs an old one unawares."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

from app.compiled import stale

ROOT = Path(__file__).parents[2]


def test_what_is_compiled_in_this_checkout_is_of_its_sources() -> None:
    assert stale() == [], "make compile, or make clean: tests would run the core as it was"


def test_a_module_that_was_changed_after_it_was_compiled_is_stale(tmp_path: Path) -> None:
    core = tmp_path / "app" / "core"
    core.mkdir(parents=True)
    (tmp_path / "setup.py").touch()
    for name, source_s, built_s in (("old", 200, 100), ("new", 100, 200), ("plain", 100, None)):
        (core / f"{name}.py").touch()
        os.utime(core / f"{name}.py", (source_s, source_s))
        if built_s is not None:
            (core / f"{name}.cpython-311-x86_64-linux-gnu.so").touch()
            os.utime(core / f"{name}.cpython-311-x86_64-linux-gnu.so", (built_s, built_s))
    (core / "gone.cpython-311-x86_64-linux-gnu.so").touch()
    (core / "compiled__mypyc.cpython-311-x86_64-linux-gnu.so").touch()  # what they share
    assert stale([core]) == ["core.gone", "core.old"]
    (tmp_path / "setup.py").unlink()
    assert stale([core]) == [], "an installation"


def test_nothing_is_compiled_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []
    monkeypatch.setattr("setuptools.setup", lambda **given: built.append(given["ext_modules"]))
    monkeypatch.delenv("NUDGE_COMPILE", raising=False)
    module = runpy.run_path(str(ROOT / "setup.py"))
    assert built == [[]]
    assert all((ROOT / source).exists() for source in module["SOURCES"])
