"""Imports run downhill only, and the core does no I/O: read from the source, so that nothing has to be imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each layer may import those before it. The two of learning and policy do not know each other; tables are declared
# with what app.stream offers, never the reverse. `app` stands for whatever of app.* has no line of its own: wiring.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"schemas"}),
    frozenset({"app.core"}),
    frozenset({"app.learning", "app.policy"}),
    frozenset({"app.stream"}),
    frozenset({"tables"}),
    frozenset({"agents"}),
    frozenset({"app"}),
    frozenset({"tests", "benchmarks"}),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
SHIPPED = ("schemas", "app", "tables", "agents")

# Whatever would let the core ask for the time, roll dice, wait or reach outside; importlib and the builtins below
# would be a way around this list.
# fmt: off
IMPURE = frozenset({
    "aiofiles", "aiohttp", "aiokafka", "asyncio", "concurrent", "faust", "http", "httpx", "importlib", "io",
    "logging", "mode", "multiprocessing", "os", "pathlib", "prometheus_client", "random", "requests", "rocksdict",
    "secrets", "selectors", "shutil", "signal", "socket", "ssl", "structlog", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib", "uuid", "uvloop",
})
# fmt: on
IMPURE_CALLS = frozenset({"open", "print", "input", "eval", "exec", "__import__"})
# The expression compiler runs a syntax tree of its own templates and literals; nowhere else may code be made.
ALLOWED_CALLS = frozenset({("app.core.expression_codegen", "exec")})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})


def part_of(module: str) -> str | None:
    """The layered part that a module belongs to; None for other people's code."""
    names = module.split(".")
    for length in (2, 1):
        name = ".".join(names[:length])
        if name in RANK:
            return name
    return None


def imported(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import, wherever it stands: lazy and type-checking ones count too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                keep = len(module.split(".")) - node.level + is_package
                base = ".".join([*module.split(".")[:keep], *filter(None, [base])])
            # `from app import core` names a module only together with what it takes.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def uphill(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module that do not run downhill."""
    found = []
    here = part_of(module)
    assert here is not None, f"{module} belongs to no layer"
    for line, name in imported(ast.parse(source), module, is_package=is_package):
        there = part_of(name)
        if there is None or there == here:
            continue
        if RANK[there] >= RANK[here]:
            found.append(f"{module}:{line} imports {name}: {here} may not know {there}")
    return found


def impure(source: str, module: str) -> list[str]:
    """What a module of the core does that a pure one cannot."""
    tree = ast.parse(source)
    found = [
        f"{module}:{line} imports {name}" for line, name in imported(tree, module) if name.partition(".")[0] in IMPURE
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in IMPURE_CALLS - {
            name for at, name in ALLOWED_CALLS if at == module
        }:
            found.append(f"{module}:{node.lineno} calls {called.id}")
        if isinstance(called, ast.Attribute) and called.attr in CLOCK_METHODS:
            found.append(f"{module}:{node.lineno} asks for the time: {called.attr}()")
    return found


def modules() -> list[tuple[str, Path]]:
    """Name and file of every module that we ship."""
    found = []
    for top in SHIPPED:
        for path in sorted((ROOT / top).rglob("*.py")):
            names = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(names[:-1] if names[-1] == "__init__" else names), path))
    return found


def test_no_import_runs_uphill() -> None:
    found = [
        line
        for module, path in modules()
        for line in uphill(path.read_text(), module, is_package=path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_the_core_does_no_io_and_asks_for_no_time() -> None:
    found = [
        line for module, path in modules() if part_of(module) == "app.core" for line in impure(path.read_text(), module)
    ]
    assert not found, "\n".join(found)


def test_every_layer_has_modules() -> None:
    # A folder that was renamed would otherwise leave the checks above with nothing to read.
    assert {part_of(module) for module, _ in modules()} == set(RANK) - {"tests", "benchmarks"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("schemas.events", "from app.core.ids import stable_id"),
        ("app.core.fold", "import app.stream.engine"),
        ("app.core.fold", "from app import stream"),
        ("app.core.fold", "from ..learning import model"),
        ("app.core.fold", "def late():\n    from app.policy import load"),
        ("app.core.fold", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import agents.profiles"),
        ("app.core.fold", "from app.clock import Clock"),
        ("app.learning.model", "from app.policy.load import load"),
        ("app.stream.table", "from tables.profiles import profiles"),
        ("tables.profiles", "from agents.profiles import attach"),
        ("agents.profiles", "from app.settings import Settings"),
        ("agents.profiles", "from app.sender.rules import judge"),
        ("app.main", "from tests.support.kafka import KafkaBroker"),
    ],
)
def test_an_uphill_import_is_caught(module: str, source: str) -> None:
    assert len(uphill(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.core.fold", "from schemas.events import Event\nfrom app.core.panes import add\nimport msgspec"),
        ("app.core.fold", "from .panes import add"),
        ("app.stream.engine", "from app.learning.scorer import FrozenModel"),
        ("tables.profiles", "from app.stream.table import RowTable"),
        ("app.sender.delivery", "from agents.profiles import attach\nfrom app.clock import Clock"),
    ],
)
def test_a_downhill_import_is_let_pass(module: str, source: str) -> None:
    assert uphill(source, module) == []


def test_a_relative_import_in_a_package_counts_from_the_package() -> None:
    assert uphill("from . import panes", "app.core", is_package=True) == []
    assert len(uphill("from .. import stream", "app.core", is_package=True)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "exec(text)",
        "import time",
        "from os import environ",
        "import asyncio.queues",
        "open('x')",
        "at = datetime.now(tz=UTC)",
    ],
)
def test_io_and_clocks_are_caught_in_the_core(source: str) -> None:
    assert len(impure(source, "app.core.fold")) == 1
