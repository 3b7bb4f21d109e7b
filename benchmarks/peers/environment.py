"""Where peers are built: folders in the user's cache, named by what they were built from, made once and whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_BUILD_S_MAX: Final = 600.0


class PeerUnavailable(RuntimeError):
    """A peer cannot run on this machine; the message says what is missing."""


def built(name: str, sources: Sequence[Path], build: Callable[[Path], None]) -> Path:
    """The folder that `build` filled, now or earlier.

    Parameters
    ----------
    sources
        When one of them changes, the peer is built anew.
    build
        Fills the folder it is given. Nobody sees the folder before it is whole; it is not moved afterwards.

    Raises
    ------
    PeerUnavailable
        From `build`.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nudge"
    wanted = cache / f"peer-{name}-{digest}"
    whole = wanted / "whole"
    if whole.exists():
        return wanted
    shutil.rmtree(wanted, ignore_errors=True)
    wanted.mkdir(parents=True)
    print(f"building the peer {name} in {wanted}, once", file=sys.stderr, flush=True)
    try:
        build(wanted)
    except BaseException:
        shutil.rmtree(wanted, ignore_errors=True)
        raise
    whole.touch()
    return wanted


def checked(command: Sequence[str], what: str) -> None:
    """Run a build step. Raises `PeerUnavailable` with the end of its output when it fails or takes too long."""
    with tempfile.TemporaryFile() as output:
        reason = f"took more than {_BUILD_S_MAX:.0f} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_BUILD_S_MAX,
            )
            if done.returncode == 0:
                return
            reason = f"ended with {done.returncode}"
        output.seek(0)
        words = output.read().decode(errors="replace")[-2_000:]
    raise PeerUnavailable(f"{what} {reason}: {words}")
