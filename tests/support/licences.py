"""Licences of the locked packages, from what they say of themselves: docs/licences.md.

    python -m tests.support.licences [--write]

Fails when a licence is unknown or not one that lets us ship, or when the page is not right. Packages that this platform
does not install are left to one that does.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata, requires
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.locked import ROOT, exceptions, pins

PAGE: Final = ROOT / "docs" / "licences.md"
ALLOWED: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU"),
        *("MPL-2.0", "PSF-2.0", "Unlicense", "Zlib", "ZPL"),
    }
)
"""Permissive ones, and MPL-2.0, which asks for the changed files of the package itself and nothing else."""
_SPOKEN: Final = (
    (r"apache", "Apache-2.0"),
    (r"mozilla|\bmpl", "MPL-2.0"),
    (r"python software foundation|\bpsf", "PSF-2.0"),
    (r"\bisc\b", "ISC"),
    (r"repoze|\bzpl", "ZPL"),
    (r"\b3-clause|bsd.3", "BSD-3-Clause"),
    (r"\b2-clause|bsd.2", "BSD-2-Clause"),
    (r"\bbsd\b", "BSD"),
    (r"\bmit\b", "MIT"),
)
"""How packages without an SPDX expression put it."""
HEAD: Final = """# Licences

Of the packages in `requirements.lock`, as they state them; made by `python -m tests.support.licences --write` and
checked in CI. All are permissive, or MPL-2.0, which concerns changes to the package itself. "run" is what a worker, a
sender or the console needs, "push" what the push services need, "otel" the export of traces; "dev" is what tests, the
demo and the documentation need, none of which is in the image.

| package | licence | for |
|---|---|---|
"""


def licence(stated: Any) -> str:
    """An SPDX expression from a package's metadata; empty when it says nothing that is understood.

    Examples
    --------
    >>> licence({"License": "BSD 3-Clause License"})
    'BSD-3-Clause'
    """
    if expression := stated.get("License-Expression"):
        return str(expression)
    every = stated.get_all("Classifier") if hasattr(stated, "get_all") else None
    classifiers = [one.rpartition(" :: ")[2] for one in every or () if one.startswith("License :: ")]
    said = (stated.get("License") or "").strip().splitlines()[:1]
    spoken = [found for text in classifiers if (found := _spdx(text))]
    first = _spdx(said[0]) if said else ""
    if first and (len(spoken) < 2 or first != spoken[0]) and not (first == "BSD" and spoken):
        return first
    return " OR ".join(dict.fromkeys(spoken))


def _spdx(text: str) -> str:
    return next((name for pattern, name in _SPOKEN if re.search(pattern, text, re.IGNORECASE)), "")


def refused(expression: str) -> list[str]:
    """Of an expression: the licences that are not allowed; a choice (OR) needs one that is."""
    choices = [re.findall(r"[A-Za-z0-9.-]+", part) for part in re.split(r"\bOR\b", expression.replace("AND", " "))]
    bad = [[name for name in names if name not in ALLOWED] for names in choices]
    return [] if any(not each for each in bad) else [name for each in bad for name in each]


def needed(roots: Iterable[str]) -> set[str]:
    """Every package that these requirements bring on this platform, and they themselves."""
    found: set[tuple[str, str]] = set()
    queue = [Requirement(root) for root in roots]
    while queue:
        wanted = queue.pop()
        for extra in ("", *wanted.extras):
            each = (canonicalize_name(wanted.name), extra)
            if each in found:
                continue
            found.add(each)
            try:
                further = [Requirement(text) for text in requires(wanted.name) or ()]
            except PackageNotFoundError:
                continue
            queue += [one for one in further if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def stated_licences() -> tuple[dict[str, str], list[str]]:
    """Licence by package, and what is wrong."""
    problems = []
    tolerated = exceptions("licence", datetime.now(UTC).date())
    found: dict[str, str] = {}
    for name in sorted({canonicalize_name(name) for name, _ in pins()}):
        try:
            stated = licence(metadata(name))
        except PackageNotFoundError:
            continue  # of another platform
        if name in tolerated:
            stated = tolerated[name]["licence"]
        elif not stated or refused(stated):
            problems.append(f"{name}: licence {stated or 'not stated'}: not one of {', '.join(sorted(ALLOWED))}")
        found[name] = stated
    return found, problems


def page(licences: Mapping[str, str]) -> str:
    """docs/licences.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    groups = {"run": needed(project["dependencies"]), "push": needed(extras["push"]), "otel": needed(extras["otel"])}
    rows = []
    for name, stated in licences.items():
        use = next((group for group, names in groups.items() if name in names), "dev")
        rows.append(f"| {name} | {stated} | {use} |")
    return HEAD + "\n".join(rows) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Check, or (`--write`) write the page; 1 when something is wrong."""
    try:
        licences, problems = stated_licences()
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 1
    wanted = page(licences)
    if "--write" in arguments:
        PAGE.write_text(wanted)
    elif missing := sorted(set(wanted.splitlines()) - set(PAGE.read_text().splitlines())):
        problems += [f"{PAGE.name} lacks: {line}; run python -m tests.support.licences --write" for line in missing]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(licences)} packages")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
