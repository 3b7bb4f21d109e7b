"""What all parts of a policy are compiled against: the file's places, the names that there are, the mistakes so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from app.core.campaign import Where
from app.core.expression_context import Expression, ExpressionContext
from app.core.expression_errors import ExpressionErrors, nearest
from app.core.expressions import compile_expression, compile_where
from app.core.panes import NEVER_MS
from app.core.profile import Profile
from app.policy.errors import Path, PolicyError
from app.policy.event_names import doubtful
from app.policy.source import Document

Made = TypeVar("Made")


def _nobody(profile: Profile, now_ms: int, user: str) -> bool:
    return False


def _never(profile: Profile, now_ms: int, user: str) -> int:
    return NEVER_MS


BROKEN: Final = Expression("", _nobody, _never, (), frozenset(), clocked=False)
"""Stands for a condition that has a mistake of its own, so that those that name it are not blamed for it."""


class Scope:
    """Compiles conditions and checks names; a mistake is noted in `errors` with its place and nothing is raised."""

    def __init__(self, document: Document, context: ExpressionContext, errors: list[PolicyError]) -> None:
        self.document = document
        self.context = context
        self.errors = errors
        self.named: list[tuple[str, Path, int]] = []
        """Events that the file names: in which field, and at which character of it."""

    def refuse(self, path: Path, message: str, suggestion: str = "") -> None:
        """Note a mistake in the field at `path`."""
        self.errors.append(self.document.error(path, message, suggestion))

    def refuse_text(self, path: Path, offset: int, message: str, suggestion: str = "") -> None:
        """Note a mistake at the character `offset` of the field at `path`."""
        self.errors.append(self.document.error_in_text(path, offset, message, suggestion))

    def expression(self, path: Path, text: str) -> Expression:
        """The condition, or `BROKEN`."""
        made = self._guarded(path, lambda: compile_expression(text, self.context, ".".join(map(str, path))))
        if made is None:
            return BROKEN
        self.named += [(event, path, offset) for event, offset in made.named]
        return made

    def where(self, path: Path, text: str | None) -> Where | None:
        """The condition over properties; None where there is none, or where it has a mistake."""
        return None if text is None else self._guarded(path, lambda: compile_where(text, self.context))

    def _guarded(self, path: Path, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except ExpressionErrors as exc:
            for error in exc.errors:
                self.refuse_text(path, error.offset, error.message, error.suggestion)
            return None

    def check_event(self, path: Path, name: str) -> None:
        """An event that the policy does not list, where it lists any, is a mistake."""
        self.named.append((name, path, 0))
        known = self.context.event_names
        if known is not None and name not in known:
            self.refuse(path, f"unknown event {name!r} (the policy lists its events)", nearest(name, known))

    def warnings(self) -> tuple[str, ...]:
        """Where the file names an event that is perhaps a misspelling of another."""
        if self.context.event_names is not None:
            return ()  # it would have been a mistake
        meant = doubtful(Counter(event for event, _, _ in self.named))
        message = "no known event is called {!r} (if yours is, list your events under `events`)"
        return tuple(
            str(self.document.error_in_text(path, offset, message.format(event), meant[event]))
            for event, path, offset in self.named
            if event in meant
        )

    def event_places(self) -> dict[str, str]:
        """The events that the file names, each with the first place where it does."""
        first = {event: (path, offset) for event, path, offset in reversed(self.named)}
        return {
            event: str(self.document.error_in_text(path, offset, "")).removesuffix(": ")
            for event, (path, offset) in first.items()
        }

    def check_segment(self, path: Path, name: str) -> None:
        """A segment that the policy does not have is a mistake."""
        known = self.context.segment_names
        if name not in known:
            self.refuse(path, f"unknown segment {name!r}", nearest(name, known))

    def check_unique(self, path: Path, named: Iterable[tuple[int, str]]) -> None:
        """A name that stands twice in the list at `path` is a mistake; `named` are its positions with their names."""
        first: dict[str, int] = {}
        for at, name in named:
            if first.setdefault(name, at) != at:
                self.refuse((*path, at, "name"), f"{name!r} is {path[-1]}[{first[name]}] already")
