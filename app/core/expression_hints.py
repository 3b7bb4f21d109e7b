"""What people write who know other languages, and how it is written here: for texts that are no expression."""

from __future__ import annotations

import re
from typing import Final

_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_HABITS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"&&?"), "write 'and'"),
    (re.compile(r"\|\|?"), "write 'or'"),
    (re.compile(r"!(?!=)"), "write 'not'"),
    (re.compile(r"<>"), "write '!='"),
    (re.compile(r"=[<>]"), "write '<=' or '>='"),
    (re.compile(r"===+"), "write '=='"),
    (re.compile(r"(?<![<>=!])(?<!where)(?<!among)\s*=(?!=)"), "to compare, write '=='"),
    (re.compile(r"\b(?:AND|OR|NOT|IN)\b"), "write 'and', 'or', 'not', 'in' in small letters"),
    (re.compile(r"%"), "write a number: top(10, ...) for ten percent of the users, 0.6 for a score of 60 %"),
    (re.compile(r"\bwhere\s+(?=[\w(])"), "a condition is named: write where=..."),
    (re.compile(r"\bamong\s+(?=[\w(])"), "a condition is named: write among=..."),
    (re.compile(r"\b\d+(?:ms|s|m|h|d|w)\b"), "write a duration in quotes, such as '7d'"),
)


def hint(line: str) -> tuple[str, int] | None:
    """What to write instead, and the character at which it stands; None when nothing of the kind is there.

    Examples
    --------
    >>> hint("orders() > 1 && sent() < 3")
    ("write 'and'", 13)
    >>> hint("count('a && b', '7d' > 3")
    """
    bare = _QUOTED.sub(lambda quoted: " " * len(quoted[0]), line)
    found = [
        (match.end() - len(match[0].lstrip()), message)
        for habit, message in _HABITS
        if (match := habit.search(bare)) is not None
    ]
    if not found:
        return None
    at, message = min(found)
    return message, at
