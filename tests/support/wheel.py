"""Check a built wheel: it holds all modules and assets of our packages, and nothing that is not meant to be installed.

python -m tests.support.wheel WHEEL SOURCE_FOLDER
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Final

SHIPPED: Final = ("app", "agents", "tables", "schemas")
ASSETS: Final = (".css", ".html", ".js", ".svg")


def problems(wheel: Path, source: Path) -> list[str]:
    """What is missing from the wheel, and what should not be in it."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {
        path.relative_to(source).as_posix()
        for top in SHIPPED
        for path in (source / top).rglob("*")
        if path.suffix in (".py", *ASSETS) and "__pycache__" not in path.parts
    }
    found = [f"missing: {name}" for name in sorted(wanted - held)]
    folders = {name.partition("/")[0] for name in held if ".dist-info/" not in name}
    found += [f"should not be installed: {folder}" for folder in sorted(folders - set(SHIPPED))]
    return found if wanted else [f"{source} holds none of our packages"]


def main(wheel: str, source: str) -> int:
    """Print the problems; 1 when there are any."""
    found = problems(Path(wheel), Path(source))
    for line in found:
        print(f"{Path(wheel).name}: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
