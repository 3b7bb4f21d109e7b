"""Child processes that never outlive us: the embedded broker, and the demo's worker and sender.

Each child leads a session of its own, so that Ctrl-C in a terminal reaches only us and we choose the order in which
children stop. On Linux the kernel kills a child whose parent died, however it died; elsewhere `atexit` covers every
end but SIGKILL.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_TAIL_BYTES: Final = 8192


def _kernel_kills_orphans() -> Callable[[], None] | None:
    """What a Linux child runs between fork and exec; None where there is no such thing.

    The kernel counts the parent *thread*: start children from a thread that stays.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return before_exec


class Child:
    """A running process whose output goes to a log file.

    Parameters
    ----------
    command
        Program and arguments.
    env
        The whole environment; ours when None.
    log_path
        Where stdout and stderr go; an unnamed temporary file when None.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log_path: Path | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self._last_words = ""
        self._log = log_path.open("w+b") if log_path else tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(  # noqa: S603 - our own commands, never a shell
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            start_new_session=True,
            preexec_fn=_kernel_kills_orphans(),  # noqa: PLW1509 - calls nothing that could take a lock
        )
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """The end of what the process wrote."""
        if self._log.closed:
            return self._last_words
        size = os.fstat(self._log.fileno()).st_size
        start = max(0, size - _TAIL_BYTES)
        return os.pread(self._log.fileno(), size - start, start).decode(errors="replace")

    def stop(self, grace_s: float = 10.0) -> int:
        """Ask the process to end, kill it after `grace_s`, and give its exit status. May be called again."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        atexit.unregister(self.kill)
        self._last_words = self.log_tail()
        self._log.close()
        return self._process.wait()

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
