"""Templates: Liquid, parsed and checked when a policy is loaded, so that nothing about them can fail when one is sent.

Checked at load: syntax, tags, filters, and that every variable starts at a known root. At send a missing value is
what the `default` filter says, or empty; a template that fails all the same (a filter given a list for a number)
gives the text that it has when every value is missing. Loops and output are bounded. There is no `date` filter and no
`include`: both would read something other than the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from liquid import BoundTemplate, Environment
from liquid.exceptions import LiquidError

from app.core.catalog import FACTS
from app.core.expression_errors import nearest
from app.core.lengths import UNLIMITED, Limits, cut, fit, joined
from app.core.links import clean_link, link_problem
from app.core.render_plain import Plain, plain

SOURCE_CHARS_MAX: Final = 4_000

# Root to the names under it, or None where any name may be (traits and properties are the producers' choice).
ROOTS: Final[dict[str, frozenset[str] | None]] = {
    "user": None,
    "event": None,
    "profile": frozenset({"orders", "revenue", "sent", "opened", "device", "timezone", "favourite", "locale"}),
    "campaign": frozenset({"name", "category"}),
}

_ITEM_NAMES: Final = frozenset({"id", "category", "name", "first", "last", "size"})
"""Of `items`, which only a campaign that recommends has."""
_ONLY_WITH: Final = {"items": "'recommend'", "item": "a trigger on the catalog"}

_TAGS: Final = frozenset(
    {"if", "unless", "case", "for", "assign", "capture", "comment", "echo", "#", "break", "continue"}
)
_IMPURE_FILTERS: Final = frozenset({"date"})  # `"now" | date` is the clock


class _Environment(Environment):
    loop_iteration_limit = 1_000
    output_stream_limit = 8_000
    local_namespace_limit = 8_000
    context_depth_limit = 8
    block_nesting_limit = 8


def _make_environment() -> _Environment:
    environment = _Environment()
    for name in _IMPURE_FILTERS:
        del environment.filters[name]
    for name in set(environment.tags) - _TAGS - {"content", "output", "illegal"}:
        del environment.tags[name]
    return environment


_ENVIRONMENT = _make_environment()


class TemplateError(ValueError):
    """What is wrong with a template; `offset` is the character of its text at which it stands."""

    def __init__(self, message: str, offset: int = 0, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.suggestion = suggestion


@dataclass(slots=True)
class Rendered:
    """What the person would read."""

    title: str
    body: str
    deep_link: str


class Template:
    """One text with placeholders. Raises `TemplateError` when it is not sound."""

    __slots__ = ("_bound", "_plain", "_without_values", "roots")

    def __init__(self, source: str, *, also: frozenset[str] = frozenset()) -> None:
        if len(source) > SOURCE_CHARS_MAX:
            raise TemplateError(f"{len(source)} characters; a template has at most {SOURCE_CHARS_MAX}")
        self._bound: BoundTemplate | None = None
        self._plain: Plain | None = None
        self._without_values = source
        self.roots: frozenset[str] = frozenset()
        """What of the context it speaks of."""
        if "{{" in source or "{%" in source:
            self._bound, self.roots, self._without_values = _parse(source, also=also)
            self._plain = plain(self._bound)

    def render(self, context: Mapping[str, Any]) -> str:
        """The text; never raises, whatever the values are."""
        if self._bound is None:
            return self._without_values
        try:
            text = None if self._plain is None else self._plain(context)
            if text is None:
                text = self._bound.render(**context)
        except Exception:  # any filter may meet any type; the message must go out all the same
            return self._without_values
        return text if text.strip() else self._without_values

    @property
    def fixed(self) -> str | None:
        """The text, where it has no placeholders."""
        return self._without_values if self._bound is None else None


def _parse(source: str, *, also: frozenset[str]) -> tuple[BoundTemplate, frozenset[str], str]:
    """The template, the roots of what it speaks of, and its text without values."""
    try:
        bound = _ENVIRONMENT.from_string(source)
        roots = _check_names(bound, also=also)
        return bound, roots, bound.render(items=[], **{root: {} for root in (*ROOTS, "item")})
    except LiquidError as exc:
        raise _located(exc, source) from None
    except RecursionError:
        raise TemplateError("too deeply nested") from None


def _check_names(bound: BoundTemplate, *, also: frozenset[str]) -> frozenset[str]:
    """Returns the roots of what it speaks of."""
    analysis = bound.analyze()
    for name, spans in analysis.filters.items():
        if name not in _ENVIRONMENT.filters:
            offset = spans[0].index
            raise TemplateError(f"unknown filter {name!r}", offset, nearest(name, _ENVIRONMENT.filters))
    roots = set()
    for variables in analysis.globals.values():
        for variable in variables:
            roots.add(str(variable.segments[0]))
            if str(variable.segments[0]) in _ONLY_WITH:
                _check_item(variable.segments, variable.span.index, also)
            else:
                _check_variable(variable.segments, variable.span.index)
    return frozenset(roots)


def _located(exc: LiquidError, source: str) -> TemplateError:
    offset = max(0, min(getattr(exc.token, "start_index", 0), len(source) - 1))
    message = str(exc.args[0]) if exc.args else type(exc).__name__
    return TemplateError(f"not a template: {message}", offset)


def _check_variable(segments: list[Any], offset: int) -> None:
    root = str(segments[0])
    if root not in ROOTS:
        known = ", ".join(ROOTS)
        raise TemplateError(f"unknown variable {root!r}; the roots are {known}", offset, nearest(root, ROOTS))
    names = ROOTS[root]
    if names is None or len(segments) < 2 or not isinstance(segments[1], str):
        return
    if segments[1] not in names:
        known = ", ".join(sorted(names))
        message = f"unknown variable '{root}.{segments[1]}'; there are {known}"
        raise TemplateError(message, offset, nearest(segments[1], names))


def _check_item(segments: list[Any], offset: int, also: frozenset[str]) -> None:
    root = str(segments[0])
    if root not in also:
        raise TemplateError(f"{root!r} is there only in a campaign with {_ONLY_WITH[root]}", offset)
    names = FACTS if root == "item" else _ITEM_NAMES
    for name in segments[1:]:
        if isinstance(name, str) and name not in names:
            known = ", ".join(sorted(names))
            raise TemplateError(f"an item has no {name!r}; there are {known}", offset, nearest(name, names))


class FieldError(TemplateError):
    """A template error and the field, ``title``, ``body`` or ``deep_link``, that has it."""

    def __init__(self, field: str, error: TemplateError) -> None:
        super().__init__(error.message, error.offset, error.suggestion)
        self.field = field


class MessageTemplate:
    """The three texts of a notification.

    Raises
    ------
    FieldError
        When a text is not sound, the title or body can be empty or is longer than `limits` even without values, or
        the link is none that only the policy chooses.

    Examples
    --------
    >>> template = MessageTemplate("Hi {{ user.name | default: 'there' }}", "Your basket waits.", "shop://cart")
    >>> template.render({"user": {}}).title
    'Hi there'
    """

    __slots__ = ("_body", "_deep_link", "_fixed_link", "_fixed_title", "_limits", "_title", "roots")

    def __init__(
        self,
        title: str,
        body: str,
        deep_link: str = "",
        limits: Limits = UNLIMITED,
        *,
        also: frozenset[str] = frozenset(),
    ) -> None:
        self._limits = limits
        self._title = _text("title", title, limits, also=also)
        self._body = _text("body", body, limits, also=also)
        self._deep_link = _checked("deep_link", deep_link, also=also)
        if problem := link_problem(deep_link):
            raise FieldError("deep_link", TemplateError(problem))
        words, link = self._title.fixed, self._deep_link.fixed
        self._fixed_title = None if words is None else cut(words, limits.title)
        self._fixed_link = None if link is None else clean_link(link)
        self.roots: frozenset[str] = self._title.roots | self._body.roots | self._deep_link.roots
        """What of the context it speaks of."""

    def render(self, context: Mapping[str, Any]) -> Rendered:
        """The texts, cut to what a phone shows and a push service takes."""
        title, deep_link = self._fixed_title, self._fixed_link
        if title is None:
            title = cut(self._title.render(context), self._limits.title)
        if deep_link is None:
            deep_link = clean_link(self._deep_link.render(context))
        body = cut(self._body.render(context), self._limits.body)
        return Rendered(title=title, body=fit(title, body, deep_link), deep_link=deep_link)


def _checked(field: str, source: str, *, also: frozenset[str]) -> Template:
    try:
        return Template(source, also=also)
    except TemplateError as exc:
        raise FieldError(field, exc) from None


def _text(field: str, source: str, limits: Limits, *, also: frozenset[str]) -> Template:
    template = _checked(field, source, also=also)
    chars_max = limits.title if field == "title" else limits.body
    bare = joined(template.render({}))
    if not bare:
        message = "the text is empty when its values are missing: add words or a default"
        raise FieldError(field, TemplateError(message))
    if len(bare) > chars_max:
        shown = f"{limits.shown_by} show {chars_max}" if limits.shown_by else f"a {field} has at most {chars_max}"
        values = "" if bare == joined(source) else " without its values"
        raise FieldError(field, TemplateError(f"{len(bare)} characters{values}; {shown}"))
    return template
