"""Whether the modules that run once an event are compiled (`make compile`, setup.py), and of these sources."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from app.core import run

FOLDERS: Final = tuple(Path(__file__).parent / part for part in ("core", "stream", "learning"))
"""Packages that have compiled modules."""


def is_compiled() -> bool:
    """Whether this process runs the compiled core."""
    return not run.__file__.endswith(".py")


def stale(folders: Iterable[Path] = FOLDERS) -> list[str]:
    """Modules whose source is newer than what was compiled of it: they run as they were then.

    Times mean something only in a checkout; an installation writes both files in no particular order.
    """
    return sorted(f"{folder.name}.{name}" for folder in folders for name in _stale_in(folder))


def _stale_in(folder: Path) -> list[str]:
    if not (folder.parent.parent / "setup.py").exists():
        return []
    built = {binary.name.partition(".")[0]: binary for binary in folder.glob("*.so") if "__mypyc" not in binary.name}
    sources = {name: folder / f"{name}.py" for name in built}
    return [
        name
        for name, binary in built.items()
        if not sources[name].exists() or sources[name].stat().st_mtime > binary.stat().st_mtime
    ]
