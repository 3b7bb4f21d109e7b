"""`faust -A app.main worker`: the worker's app, from the environment."""

from __future__ import annotations

import sys

from app.factory import Worker
from app.faust_settings import install_uvloop
from app.logs import configure_logs
from app.policy.errors import PolicyErrors
from app.settings import ConfigurationError, load_settings

install_uvloop()
try:
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    worker = Worker(settings)
except (ConfigurationError, PolicyErrors) as exc:
    sys.stderr.write(f"nudge: cannot start\n{exc}\n")
    sys.exit(2)
app = worker.app
