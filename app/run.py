"""Runs a Faust app as this process: signals, exit code."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

from app.stream.app import StreamApp

SWITCH_INTERVAL_S: Final = 0.0005
"""How long the event loop may keep the interpreter from the consumer's thread that has a fetch to hand over. Python's
own 5 ms was most of the way from event to decision (ADR 7).
"""


def run_app(app: StreamApp) -> NoReturn:
    """Run until SIGTERM or SIGINT, then drain, commit and leave the group. Exits the process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    app.finalize()
    worker = app.Worker(loglevel="INFO", quiet=True, override_logging=False, redirect_stdouts=False)
    worker.spinner = None  # it would write a terminal's codes between the lines of the console provider
    worker.execute_from_commandline()
    raise SystemExit(0)
