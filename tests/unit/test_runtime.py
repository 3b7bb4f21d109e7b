"""What runs this process, and what a worker says of it."""

from __future__ import annotations

import asyncio
import platform
import subprocess
import sys

import pytest
import structlog
import uvloop

from app.runtime import Runtime, event_loop, runtime, say_runtime

COMPILED = Runtime("CPython 3.13.0", "optimised", "compiled", "uvloop 0.23.0")
INTERPRETED = Runtime("CPython 3.13.0", "", "interpreted", "uvloop 0.23.0")


@pytest.mark.parametrize(
    ("here", "production", "warned"), [(COMPILED, True, 0), (INTERPRETED, True, 1), (INTERPRETED, False, 0)]
)
def test_a_worker_warns_once_of_an_interpreted_core_in_production(here: Runtime, production: bool, warned: int) -> None:
    with structlog.testing.capture_logs() as lines:
        say_runtime(here, production=production)
    assert [line["core"] for line in lines if line["event"] == "runtime"] == [here.core]
    assert [line["event"] for line in lines].count("core_is_interpreted") == warned


def test_the_event_loop_is_the_one_that_runs() -> None:
    async def which() -> str:
        return event_loop()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(which()) == "asyncio"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(which()).startswith("uvloop ")


def test_the_interpreter_is_named_with_its_build_where_that_is_known() -> None:
    assert COMPILED.interpreter() == "CPython 3.13.0 (optimised)"
    assert INTERPRETED.interpreter() == "CPython 3.13.0"
    assert platform.python_version() in runtime().python


def test_a_process_gets_its_event_loop_without_a_warning() -> None:
    """In a process of its own: the policy holds for all that follows."""
    code = "import asyncio; from app.faust_settings import install_uvloop; install_uvloop(); "
    code += "print(type(asyncio.new_event_loop()).__module__)"
    # A library's import may warn; what our own call says must not.
    command = [sys.executable, "-W", "error::DeprecationWarning:uvloop", "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stdout.strip() == "uvloop", told.stderr
