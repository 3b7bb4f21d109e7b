"""The console provider: one JSON line a message, to standard output or a file. For demonstrations and tests.

It prints what the person would read, so its output is personal data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from app.sender.providers.base import Accepted, BadProvider, Message, Outcome, Retry, Unknown, encode_message

STDOUT: Final = 1


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """`path` of the file to append to; empty for standard output."""

    path: str = ""


class ConsoleProvider:
    """Writes to the file descriptor itself, unbuffered: a line that was accepted survives the process.

    Raises
    ------
    BadProvider
        If the file cannot be opened.
    """

    def __init__(self, settings: ConsoleSettings) -> None:
        self._owns = bool(settings.path)
        try:
            self._fd = (
                os.open(settings.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if settings.path else STDOUT
            )
        except OSError as exc:
            raise BadProvider(f"console: cannot open {settings.path!r}: {exc.strerror}") from exc

    async def send(self, message: Message) -> Outcome:
        """Never waits: a line is far smaller than a pipe's buffer, and a full one answers `Retry`."""
        line = memoryview(encode_message(message) + b"\n")
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as exc:
            # Part of a line may already have been read by whoever follows the file.
            return Unknown("write_interrupted") if written else Retry(f"os_error_{exc.errno}")
        return Accepted()

    async def close(self) -> None:
        if self._owns:
            os.close(self._fd)
            self._owns = False
