"""What runs this process: the interpreter and how it was built, whether the core is compiled, which event loop."""

from __future__ import annotations

import asyncio
import platform
import sysconfig
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Final, Literal

import msgspec
import structlog

from app.compiled import is_compiled, stale

log = structlog.get_logger(__name__)

CLASSIFIER: Final = "Programming Language :: Python :: 3."
BUILDS: Final = {"Py_DEBUG": "debug build", "Py_GIL_DISABLED": "free-threaded"}
"""Configuration variables of an interpreter that is not for production, and what that is called."""
COMPILE: Final = "run the image, whose core is compiled, or `make compile` in a checkout"
"""What to do about an interpreted core."""


class Runtime(msgspec.Struct, frozen=True):
    """What speed and behaviour depend on, beside our own version."""

    python: str
    """`CPython 3.13.0`."""
    build: str
    """`optimised` where the interpreter's own configuration says that it was built with profiles; `debug build` or
    `free-threaded`; else nothing: Debian's interpreter is optimised and does not say so.
    """
    core: Literal["compiled", "interpreted"]
    loop: str
    """`uvloop 0.23.0`, or `asyncio`."""

    def interpreter(self) -> str:
        """`CPython 3.13.0`, with its build where that is known."""
        return f"{self.python} ({self.build})" if self.build else self.python


def runtime() -> Runtime:
    """Of this process; the event loop is the one that runs, or that a worker started here would get."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Runtime(python, build(), "compiled" if is_compiled() else "interpreted", event_loop())


def build() -> str:
    """How the interpreter was built, as far as it can be known (see `Runtime.build`)."""
    for variable, name in BUILDS.items():
        if sysconfig.get_config_var(variable):
            return name
    configured = sysconfig.get_config_var("CONFIG_ARGS") or ""  # none on Windows
    return "optimised" if "--enable-optimizations" in configured else ""


def event_loop() -> str:
    """Whose event loop runs here; outside of one, whose would."""
    try:
        of = type(asyncio.get_running_loop()).__module__
    except RuntimeError:
        of = "uvloop"
    try:
        return f"uvloop {version('uvloop')}" if of.startswith("uvloop") else "asyncio"
    except PackageNotFoundError:  # on Windows
        return "asyncio"


def tested() -> list[str]:
    """The versions of Python that nudge is tested with (`3.11`, …), as the installed package says."""
    classifiers = metadata("nudge-engine").get_all("Classifier") or []
    return ["3." + line.removeprefix(CLASSIFIER) for line in classifiers if line.startswith(CLASSIFIER)]


def say_runtime(here: Runtime, *, production: bool) -> None:
    """Log what runs here, and warn of what costs processor time or decides as the sources once did."""
    log.info("runtime", nudge=version("nudge-engine"), **msgspec.structs.asdict(here))
    if old := stale():
        log.warning("compiled_core_is_stale", modules=old, mend="make compile, or make clean")
    if here.core == "interpreted" and production:
        log.warning("core_is_interpreted", costs="more processor time for each event", mend=COMPILE)
