"""Templates that are words and placeholders alone, without Liquid: nearly all, and a tenth of a decision's time.

Only where the outcome is beyond doubt: a placeholder is a path of names, with at most a `default` of fixed text, and
its value is text, a whole number or missing. Anything else is Liquid's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from liquid import BoundTemplate
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import Path, PositionalArgument, StringLiteral
from liquid.builtin.expressions.filtered import FilteredExpression
from liquid.builtin.output import OutputNode

Plain = Callable[[Mapping[str, Any]], str | None]
"""The text, or None where Liquid must be asked."""

_CHARS_MAX: Final = 2_000
"""Liquid bounds its output, too; what comes near its bound is left to it."""
_NOT_LOOKED_UP: Final = frozenset({"size", "first", "last"})
"""Liquid computes these."""
_MISSING: Final = object()


def plain(bound: BoundTemplate) -> Plain | None:
    """A faster way to the same text; None when there is none for this template."""
    parts: list[tuple[str, tuple[str, ...]]] = []
    for node in bound.nodes:
        if type(node) is ContentNode:
            parts.append((node.text, ()))
        elif type(node) is OutputNode and (part := _placeholder(node.expression)) is not None:
            parts.append(part)
        else:
            return None
    return lambda context: _render(parts, context)


def _placeholder(expression: Any) -> tuple[str, tuple[str, ...]] | None:
    """What stands there when the value is missing, and the names of its path."""
    if type(expression) is not FilteredExpression or type(expression.left) is not Path:
        return None
    names = tuple(name for name in expression.left.path if type(name) is str and name not in _NOT_LOOKED_UP)
    if len(names) != len(expression.left.path):
        return None
    if not expression.filters:
        return "", names
    if len(expression.filters) > 1 or expression.filters[0].name != "default":
        return None
    arguments = expression.filters[0].args
    if len(arguments) != 1 or type(arguments[0]) is not PositionalArgument:
        return None
    value = arguments[0].value
    return (value.value, names) if type(value) is StringLiteral and value.value else None


def _render(parts: list[tuple[str, tuple[str, ...]]], context: Mapping[str, Any]) -> str | None:
    found: list[str] = []
    for text, names in parts:
        if not names:
            found.append(text)
            continue
        value: Any = context
        for name in names:
            if type(value) is not dict:
                return None
            value = value.get(name, _MISSING)
            if value is _MISSING:
                break
        if value is _MISSING:
            found.append(text)
        elif type(value) is str and value:
            found.append(value)
        elif type(value) is int:
            found.append(str(value))
        else:
            return None
    whole = "".join(found)
    return whole if len(whole) <= _CHARS_MAX else None
