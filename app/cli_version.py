"""`nudge --version`: what runs here, in the words that a report of a problem needs."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated, Final

import typer

from app.cli_common import out

EXIT_CODES: Final = (
    "Exit codes: 0 done. 1 a check failed, the broker does not answer or what was asked for is not there. "
    "2 the call, a setting or a file is wrong. 3 erase: not everybody has reported yet. "
    "70 a worker or sender ended itself, to be started again. 130 interrupted."
)


def version_line() -> str:
    """The package's version, whether the core is compiled and of these sources, the interpreter and the event loop."""
    from app.compiled import stale  # noqa: PLC0415 - loads the core
    from app.runtime import runtime  # noqa: PLC0415 - likewise

    here = runtime()
    core = f"core {here.core}"
    if old := stale():
        core += f", older than its source: {', '.join(old)} (make compile)"
    machine = f"{platform.system()} {platform.machine()}"
    return f"nudge {version('nudge-engine')} ({core}), {here.interpreter()}, {here.loop}, {machine}"


def _show(asked: bool) -> None:
    if asked:
        out.print(version_line(), highlight=False, soft_wrap=True)
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show what runs here, and exit.", callback=_show, is_eager=True)
    ] = False,
) -> None:
    """Real-time segmentation and push-notification decisions, self-hosted, on Kafka."""
