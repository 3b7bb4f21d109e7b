"""The command line's help: what each command is for, an example that would run, every option's meaning."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from app.cli import app
from app.compiled import is_compiled

ROOT = get_command(app)
WIDTH = 120


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its words."""
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
    for name, child in (children or {}).items():
        yield from leaves(child, (*words, name))


def groups(command: Any) -> Iterator[Any]:
    """Every command that has others below it."""
    for child in getattr(command, "commands", {}).values():
        if hasattr(child, "commands"):
            yield child
            yield from groups(child)


COMMANDS = dict(leaves(ROOT))
each_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


@each_command
def test_a_command_says_in_one_line_what_it_is_for(words: tuple[str, ...]) -> None:
    purpose = (COMMANDS[words].help or "").strip().partition("\n")[0]
    assert purpose.endswith(".")
    assert 10 < len(purpose) < WIDTH


@each_command
def test_every_option_says_what_it_means(words: tuple[str, ...]) -> None:
    unsaid = [parameter.name for parameter in COMMANDS[words].params if not getattr(parameter, "help", "")]
    assert unsaid == []


@each_command
def test_an_example_is_of_this_command_and_names_options_that_it_has(words: tuple[str, ...]) -> None:
    """Arguments are parsed as the command would; files that an example names need not exist here."""
    epilog = COMMANDS[words].epilog or ""
    assert epilog.startswith("Example: ")
    for example in re.split(r"\s+or\s+", epilog.removeprefix("Example: ")):
        given = shlex.split(re.sub(r"\$\(.*?\)|…", "x", example))
        given = given[given.index("nudge") + 1 :]
        assert tuple(given[: len(words)]) == words
        options = {name for parameter in COMMANDS[words].params for name in parameter.opts}
        assert {word for word in given if word.startswith("--")} <= options


def test_groups_say_what_they_are_for() -> None:
    assert all((group.help or "").strip() for group in groups(ROOT))


def test_every_exit_code_that_a_script_meets_is_told_by_help() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": str(WIDTH)}).stdout
    assert "Exit codes" in told
    for code in ("0", "1", "2", "3", "70", "130"):
        assert re.search(rf"\b{code} ", told), code


def test_version_says_what_runs() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    core = "compiled" if is_compiled() else "interpreted"
    assert re.match(rf"nudge \d+\.\d+\.\d+ \(core {core}", result.stdout)
    assert f"Python {platform.python_version()}" in result.stdout
    assert f"uvloop {version('uvloop')}" in result.stdout


def test_a_mistake_in_the_call_exits_with_2() -> None:
    assert CliRunner().invoke(app, ["worker", "--no-such-option"]).exit_code == 2
