"""Structured logs: one event a line, JSON for machines, coloured text for people. No personal data."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Final, Literal

import structlog

LIBRARIES: Final = ("faust", "mode", "aiokafka", "asyncio")
_KINDS_MAX: Final = 256


class Repeats(logging.Filter):
    """Lets a library say the same thing once in `every_s`, with the number of times it was held back.

    A broker that is away makes each Kafka client say so ten times a second, in a few sentences: some 60 lines a second
    of one process, in which nothing else is found.
    """

    def __init__(self, *, every_s: float = 10.0, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._monotonic_s = monotonic_s
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        kind, now_s = (record.name, str(record.msg)), self._monotonic_s()
        at_s, held = self._said.get(kind, (-math.inf, 0))
        if now_s - at_s < self._every_s:
            self._said[kind] = (at_s, held + 1)
            return False
        if len(self._said) >= _KINDS_MAX:
            self._said.clear()
        self._said[kind] = (now_s, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more like this)", ()
        return True


def configure_logs(form: Literal["console", "json"], level: str) -> None:
    """Send our logs and the libraries' to standard error in one form."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],  # type: ignore[list-item]
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,  # type: ignore[arg-type]
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in LIBRARIES:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, getattr(logging, level.upper())))
