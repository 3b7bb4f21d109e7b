"""The middle of the expression compiler: typed values and truths that know when the clock can change them.

A `Value` or `Truth` holds the Python syntax tree that computes it. Trees are built only from our own templates
(`quote`) and literals, so a policy's text never becomes code.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, Literal

from app.core.expression_known import Known

Kind = Literal["number", "duration", "text", "bool", "any", "list"]
Scalar = int | float | str | bool
Literals = tuple[Scalar, ...]

# The truth of `value OP literal` (OP as in Python), or None to leave the comparison to the general rule.
CompareWith = Callable[[str, "Scalar | Literals"], "Truth | None"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """What shows after every event that flipped an atom, one way or the other.

    Parameters
    ----------
    feature, level
        Of a count, which an event raises by one: that it has just reached `level`.
    pause_ms
        Of a recency (then `feature` is 0): that there was no such event for so long before this one.
    """

    feature: int = 0
    level: int = 0
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class Atom:
    """A condition that is one expression.

    Parameters
    ----------
    change
        Gives the instant of its next flip by the clock; None is never.
    events
        Names of the events that can change its truth or `change`, ``*`` for any; None when that is not known.
    postponed
        Whether an event that does not flip it can only make `change` later.
    flipped
        Of a postponed one: holds after every event that did flip it, and seldom else. None when that cannot be seen.
    suspect
        How an event shows that it may have flipped it; None when it does not: then it is asked after every event.
    known
        The same condition for the compiled core; None when it does not know such.
    """

    code: ast.expr
    change: ast.expr | None = None
    events: frozenset[str] | None = None
    postponed: bool = False
    flipped: ast.expr | None = None
    suspect: Suspect | None = None
    known: Known | None = None


@dataclass(frozen=True, slots=True)
class Combined:
    """All of the items (`all`), or at least one of them (`any`)."""

    how: Literal["all", "any"]
    items: tuple[Truth, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """The opposite of a condition."""

    item: Truth


Truth = Atom | Combined | Negated


@dataclass(frozen=True, slots=True)
class Condition:
    """A truth with the functions that it calls: those of the segments it names, by their names in the code."""

    truth: Truth
    calls: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Something that can be compared.

    Parameters
    ----------
    code
        Computes it from `p` (profile), `now_ms`, `user`, or `q` (event properties).
    nullable
        Whether it may be None: missing, or not computable.
    step
        Gives the earliest instant at which the clock may change it; None when it cannot.
    slope
        Of a duration: how fast it grows, in ms per ms.
    literal
        The value itself, where the policy states it.
    compare
        A comparison with literals that knows its next flip better than `step` does.
    """

    kind: Kind
    code: ast.expr
    nullable: bool = False
    step: ast.expr | None = None
    slope: int = 0
    literal: Scalar | Literals | None = None
    compare: CompareWith | None = None
    recency: bool = False
    """Of a duration: whether it is the time since an event, which every such event makes shorter."""
    event: str = ""
    """Of a recency: the event's name; empty for any event."""


TRUE: Final = Atom(ast.Constant(True))
FALSE: Final = Atom(ast.Constant(False))


@cache
def _template(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body


class _Fill(ast.NodeTransformer):
    def __init__(self, parts: dict[str, ast.expr]) -> None:
        self.parts = parts

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.parts.get(node.id, node)


def quote(template: str, **parts: ast.expr | Scalar | tuple[object, ...] | frozenset[object]) -> ast.expr:
    """One of OUR templates as a syntax tree, with the names in `parts` replaced by trees or literals.

    Examples
    --------
    >>> ast.unparse(quote("total(ID, hour, 48) >= T", ID=7, T=3))
    'total(7, hour, 48) >= 3'
    """
    trees = {
        name: part if isinstance(part, ast.expr) else ast.Constant(part)  # type: ignore[arg-type]
        for name, part in parts.items()
    }
    filled = _Fill(trees).visit(copy.deepcopy(_template(template)))
    assert isinstance(filled, ast.expr)
    return filled


def earliest(*steps: ast.expr | None) -> ast.expr | None:
    """The earlier of several instants, of which None never comes."""
    there = [step for step in steps if step is not None]
    if len(there) < 2:
        return there[0] if there else None
    return ast.Call(ast.Name("min", ast.Load()), there, [])


def truth_code(truth: Truth) -> ast.expr:
    """A condition as one expression, evaluated left to right and no further than needed."""
    if isinstance(truth, Atom):
        return truth.code
    if isinstance(truth, Negated):
        return ast.UnaryOp(ast.Not(), truth_code(truth.item))
    operator = ast.And() if truth.how == "all" else ast.Or()
    return ast.BoolOp(operator, [truth_code(item) for item in truth.items])


def is_clocked(truth: Truth) -> bool:
    """Whether the clock alone can change a condition."""
    if isinstance(truth, Atom):
        return truth.change is not None
    if isinstance(truth, Negated):
        return is_clocked(truth.item)
    return any(is_clocked(item) for item in truth.items)


def atoms(truth: Truth) -> Iterator[Atom]:
    """The parts of a condition."""
    if isinstance(truth, Atom):
        yield truth
    elif isinstance(truth, Negated):
        yield from atoms(truth.item)
    else:
        for item in truth.items:
            yield from atoms(item)


def read_by(truth: Truth, events: frozenset[str]) -> Truth:
    """The condition, with `events` as what changes those of its atoms that do not say so themselves."""
    if isinstance(truth, Atom):
        return replace(truth, events=events) if truth.events is None else truth
    if isinstance(truth, Negated):
        return Negated(read_by(truth.item, events))
    return Combined(truth.how, tuple(read_by(item, events) for item in truth.items))
