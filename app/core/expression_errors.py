"""What is wrong with an expression, and where in its text."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ExpressionError(ValueError):
    """One mistake: a message, the character of the text at which it stands, and perhaps the name that was meant."""

    def __init__(self, message: str, offset: int = 0, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.suggestion = suggestion


class ExpressionErrors(ValueError):
    """Every mistake that was found in one expression, in the order of the text."""

    def __init__(self, errors: Iterable[ExpressionError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: error.offset))
        super().__init__("; ".join(error.message for error in self.errors))


class Mismatch(ValueError):
    """Two values that cannot be compared or reckoned with; the parser adds the place."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known name that `name` most resembles, by `cutoff` at least (1: it is the same), or an empty text.

    Examples
    --------
    >>> nearest("cuont", ["count", "sum"])
    'count'
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else ""
