"""Comparisons: which values may be compared, and the cheapest code that does it safely.

Raises `Mismatch` for a comparison that could never be meant, so that it is a load error and not a segment that is
silently empty.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final, TypeGuard, cast

from app.core.durations import parse_duration_ms
from app.core.expression_errors import Mismatch
from app.core.expression_ir import (
    FALSE,
    TRUE,
    Atom,
    Combined,
    CompareWith,
    Literals,
    Negated,
    Scalar,
    Suspect,
    Truth,
    Value,
    earliest,
    quote,
)
from app.core.expression_known import Compared, Known, LongAgo, Number, Opposite
from app.core.ids import stable_id

MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
ORDERING: Final = frozenset({"<", "<=", ">", ">="})
HOLDS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda value, options: value in options,
    "not in": lambda value, options: value not in options,
}
_STRICT: Final = frozenset({">", "<="})
_SAFE: Final = {
    "==": "same(A, B)",
    "!=": "differs(A, B)",
    "<": "less(A, B)",
    "<=": "less_or_same(A, B)",
    ">": "less(B, A)",
    ">=": "less_or_same(B, A)",
    "in": "among(A, B)",
    "not in": "not_among(A, B)",
}


def as_duration(value: Value) -> Value:
    """A text literal read as a duration; anything else as it is. Raises `Mismatch`."""
    if value.kind != "text" or not isinstance(value.literal, str):
        return value
    try:
        duration_ms = parse_duration_ms(value.literal)
    except ValueError as exc:
        raise Mismatch(str(exc)) from None
    return Value(kind="duration", code=quote("D", D=duration_ms))


def compare(left: Value, op: str, right: Value) -> Truth:
    """The truth of ``left op right``. Raises `Mismatch`."""
    if "duration" in (left.kind, right.kind):
        return _compare_durations(as_duration(left), op, as_duration(right))
    if op in ("in", "not in"):
        return _compare_in(left, op, right)
    if "list" in (left.kind, right.kind):
        raise Mismatch("a list is compared with 'in'")
    if left.literal is not None and right.literal is None:
        left, op, right = right, MIRRORED[op], left
    _check_kinds(left, op, right)
    if left.compare is not None and right.literal is not None:
        truth = left.compare(op, right.literal)
        if truth is not None:
            return truth
    code = quote(_scalar_template(left, op, right), A=left.code, B=right.code)
    return Atom(code, earliest(left.step, right.step))


def _check_kinds(left: Value, op: str, right: Value) -> None:
    kinds = {left.kind, right.kind} - {"any"}
    if len(kinds) > 1:
        raise Mismatch(f"a {left.kind} is compared with a {right.kind}")
    if "bool" in kinds and op in ORDERING:
        raise Mismatch("true and false are compared with == or !=")


def _scalar_template(left: Value, op: str, right: Value) -> str:
    certain = not left.nullable and not right.nullable and left.kind == right.kind
    if certain and left.kind in ("number", "text"):
        return f"A {op} B"
    if op == "==" and isinstance(right.literal, str):
        return "A == B"  # only a text equals a text
    if op == "==" and isinstance(right.literal, bool):
        return "A is B"
    return _SAFE[op]


def _compare_in(left: Value, op: str, right: Value) -> Truth:
    if right.kind == "any":
        template = "contains(C, I)" if op == "in" else "lacks(C, I)"
        return Atom(quote(template, C=right.code, I=left.code), earliest(left.step, right.step))
    if right.kind != "list":
        raise Mismatch(f"'{op}' needs a list such as ['a', 'b'], or a property that holds one; this is a {right.kind}")
    options = cast("Literals", right.literal)
    kinds = {"number" if type(option) in (int, float) else "text" for option in options if type(option) is not bool}
    if left.kind in ("number", "text") and kinds - {left.kind}:
        raise Mismatch(f"a {left.kind} is compared with a list that holds a {(kinds - {left.kind}).pop()}")
    if left.compare is not None:
        truth = left.compare(op, options)
        if truth is not None:
            return truth
    texts_only = all(isinstance(option, str) for option in options)
    plain = texts_only and (op == "in" or not left.nullable)
    code = quote(f"A {op} B" if plain else _SAFE[op], A=left.code, B=right.code)
    return Atom(code, left.step)


def _compare_durations(left: Value, op: str, right: Value) -> Truth:
    if (left.kind, right.kind) != ("duration", "duration"):
        other = right.kind if left.kind == "duration" else left.kind
        raise Mismatch(f"a duration is compared with a {other}; write a duration such as '48h'")
    if op not in ORDERING:
        raise Mismatch("a duration is exact to the millisecond; compare it with <, <=, > or >=")
    code = quote(f"A {op} B", A=left.code, B=right.code)
    slope = left.slope - right.slope
    if not slope:
        return Atom(code)
    change = quote(
        "linear_change(A - B, SLOPE, STRICT, now_ms)", A=left.code, B=right.code, SLOPE=slope, STRICT=op in _STRICT
    )
    for since, bound in ((left, right), (right, left)):
        if since.recency and isinstance(bound.code, ast.Constant):  # an event can only make the change later
            if not since.event:
                return Atom(code, change, postponed=True)
            bound_ms: Any = bound.code.value
            suspect = Suspect(pause_ms=bound_ms)
            known = _known_recency(since.event, op if since is left else MIRRORED[op], bound_ms)
            return Atom(code, change, frozenset({since.event}), postponed=True, suspect=suspect, known=known)
    return Atom(code, change)


def _known_recency(event: str, op: str, bound_ms: int) -> Known:
    """The time since the event, compared with a duration, for the compiled core."""
    long_ago = LongAgo(stable_id(event), bound_ms + (op in _STRICT))
    return long_ago if op in (">", ">=") else Opposite(long_ago)


def whole_steps(at_least: Callable[[int], Truth], scale: int) -> CompareWith:
    """Comparisons of an integer total with a literal, all made of ``total >= threshold``.

    Parameters
    ----------
    at_least
        Gives the truth of ``total >= threshold``.
    scale
        Units of the total in 1 of the literal (1000 for sums, which are kept in thousandths).
    """

    def compare_with(op: str, literal: Scalar | Literals) -> Truth | None:
        if isinstance(literal, bool | tuple | str):
            return None
        exact = Fraction(str(literal)) * scale
        from_, above = ceil(exact), floor(exact) + 1
        if op == ">=":
            return at_least(from_)
        if op == ">":
            return at_least(above)
        if op == "<":
            return Negated(at_least(from_))
        if op == "<=":
            return Negated(at_least(above))
        if exact.denominator != 1:
            return FALSE if op == "==" else TRUE
        equal = Combined("all", (at_least(from_), Negated(at_least(above))))
        return equal if op == "==" else Negated(equal)

    return compare_with


def over_domain(
    domain: tuple[Scalar, ...], truth_of: Callable[[frozenset[Scalar]], Truth], *, ordered: bool
) -> CompareWith:
    """Comparisons of a value that has few possible values: the literal picks those that satisfy it."""

    def compare_with(op: str, literal: Scalar | Literals) -> Truth | None:
        if not ordered:
            _check_domain(domain, op, literal)
        accepted = frozenset(value for value in domain if HOLDS[op](value, literal))
        if not accepted or len(accepted) == len(domain):
            always = "always" if accepted else "never"
            raise Mismatch(f"this is {always} true: the values are {_listed(domain)}")
        return truth_of(accepted)

    return compare_with


def within(low: float, high: float) -> CompareWith:
    """Refuses comparisons that no number from `low` to `high` passes; the others are as of any number."""

    def compare_with(op: str, literal: Scalar | Literals) -> Truth | None:
        for value in literal if isinstance(literal, tuple) and op == "in" else (literal,):
            if isinstance(value, bool | str | tuple) or _reachable(op, value):
                return None
        share = f"; write {literal:g} % as {literal / 100:g}" if high == 1.0 and _is_percent(literal) else ""
        raise Mismatch(f"this is never true: the value is from {low:g} to {high:g}{share}")

    def _reachable(op: str, value: float) -> bool:
        if op in (">", ">="):
            return value < high or (op == ">=" and value == high)
        if op in ("<", "<="):
            return value > low or (op == "<=" and value == low)
        return op in ("!=", "not in") or low <= value <= high

    return compare_with


def known_number(code: ast.expr, number: Number, compare: CompareWith | None = None) -> CompareWith:
    """Comparisons with a literal that the compiled core knows, of what `code` says; `compare` is asked first."""

    def compare_with(op: str, literal: Scalar | Literals) -> Truth | None:
        truth = compare(op, literal) if compare is not None else None
        if truth is not None or op in ("in", "not in") or isinstance(literal, bool | str | tuple):
            return truth
        return Atom(quote(f"A {op} B", A=code, B=literal), known=Compared(number, op, literal))

    return compare_with


def _is_percent(literal: Scalar | Literals) -> TypeGuard[float]:
    return isinstance(literal, int | float) and 1 < literal <= 100


def _check_domain(domain: tuple[Scalar, ...], op: str, literal: Scalar | Literals) -> None:
    if op in ORDERING:
        raise Mismatch(f"compare this with ==, != or in; the values are {_listed(domain)}")
    for value in literal if isinstance(literal, tuple) else (literal,):
        if value not in domain:
            raise Mismatch(f"{value!r} is not one of {_listed(domain)}")


def _listed(domain: tuple[Scalar, ...]) -> str:
    return ", ".join(map(str, domain)) if isinstance(domain[0], str) else f"{domain[0]} to {domain[-1]}"
