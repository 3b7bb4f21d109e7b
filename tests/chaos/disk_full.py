"""A disk of a few megabytes runs full: the worker ends itself and names the path; with room again it goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chaos.harness import put, verdict
from tests.support.crowd import crowd
from tests.support.site import Site, eventually


class NoTmpfs(RuntimeError):
    """Only root may mount a file system of a given size, and not everywhere."""


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size at `path`."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        raise NoTmpfs("a tmpfs cannot be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def can_mount() -> bool:
    """Whether a small file system can be had here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk", 1):
                return True
        except NoTmpfs:
            return False


def _enlarge(path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=200m", str(path)], check=True)


async def run(site: Site, *, seed: int = 1, events: int = 3000, megabytes: int = 6) -> dict[str, Any]:
    """Fill the disk under a worker at work, wait for its end, make room, and compare."""
    with small_disk(site.directory / "disk", megabytes) as disk:
        with site.worker("disk", NUDGE_ROCKSDB_MEMTABLE_MB="1") as worker:
            await site.ready(worker)
            await put(site, crowd(events, users=300, seed=seed))
            ballast = disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(b"x" * 65536)
                    file.flush()
            fed = events

            async def ended() -> bool:
                nonlocal fed
                fed += await put(site, crowd(500, users=2000, seed=seed + fed))
                return worker.returncode is not None

            await eventually(ended, "the worker ends itself", 60)
            code, words = worker.returncode, worker.log_tail()
        ballast.unlink()
        _enlarge(disk)
        with site.worker("disk") as worker:
            found = await verdict(site, [worker])
            worker.stop()
    return {
        "seed": seed, "events": fed, "exit_code": code, "path_named": str(disk) in words,
        "fired": int(code not in (0, None)), **found,
    }  # fmt: skip
