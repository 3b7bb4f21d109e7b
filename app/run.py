"""Runs a Faust app as this process: signals, exit code."""

from __future__ import annotations

from typing import NoReturn

from app.stream.app import StreamApp


def run_app(app: StreamApp) -> NoReturn:
    """Run until SIGTERM or SIGINT, then drain, commit and leave the group. Exits the process."""
    app.finalize()
    worker = app.Worker(loglevel="INFO", quiet=True, override_logging=False, redirect_stdouts=False)
    worker.execute_from_commandline()
    raise SystemExit(0)
