"""What is wrong with a policy file, and exactly where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class PolicyError:
    """One mistake. `line` and `column` count from 1; `path` names the field, e.g. ``segments[2].when``."""

    file: str
    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        field = f"{self.path}: " if self.path else ""
        hint = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"{self.file}:{self.line}:{self.column}: {field}{self.message}{hint}"


class PolicyErrors(ValueError):
    """Every mistake of a policy file, by place. The text has one a line."""

    def __init__(self, errors: Iterable[PolicyError]) -> None:
        self.errors = tuple(sorted(set(errors), key=lambda error: (error.file, error.line, error.column, error.path)))
        super().__init__("\n".join(map(str, self.errors)))


def field_path(path: Path) -> str:
    """A field's path as people write it.

    Examples
    --------
    >>> field_path(("segments", 2, "when"))
    'segments[2].when'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
