"""Why a condition holds or not: each of its clauses evaluated over a row, with the values that it compared.

The clauses are compiled by the compiler of the condition itself, so they read what the engine reads and cannot drift
from it; only the `and`, `or` and `not` between them are evaluated here, and without stopping at the first that
decides. Made for people: it costs a hundred times what judging the condition does.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from app.core.durations import UNITS_MS, format_duration
from app.core.expression_call import segment_globals
from app.core.expression_codegen import load_functions, make_function
from app.core.expression_context import ExpressionContext
from app.core.expression_errors import ExpressionError
from app.core.expression_ir import truth_code
from app.core.expression_parser import Parser
from app.core.expression_percentiles import OF_PERCENTILES
from app.core.percentiles import Cut
from app.core.plan import Segment
from app.core.profile import Profile
from app.core.sketch import middle_of

TEXT_CHARS_MAX: Final = 200
_AGE_UNITS: Final = ("d", "h", "m", "s")


class Reading(msgspec.Struct, frozen=True):
    """A value that a clause read: as the policy writes it, and what it was ("never", "3d 4h", "5", "missing")."""

    text: str
    value: str


class Clause(msgspec.Struct, frozen=True, omit_defaults=True):
    """A condition, or a part of one.

    Parameters
    ----------
    how
        "all", "any" or "not" of `parts`; "segment": a named segment, whose condition is its only part; "test": a
        comparison or a yes-or-no function, with what it read.
    decided
        Whether the whole would, but for the parts beside it, be what it is because of this one: a failing part of
        "all", a holding part of "any", and so on downwards.
    """

    text: str
    holds: bool
    how: Literal["all", "any", "not", "segment", "test"] = "test"
    decided: bool = False
    readings: tuple[Reading, ...] = ()
    parts: tuple[Clause, ...] = ()


Explain = Callable[[Profile, int, str], Clause]
_Read = Callable[[Profile, int, str], Any]


@dataclass(frozen=True, slots=True)
class _Node:
    """A clause before it meets a row; `holds` is compiled for tests only."""

    text: str
    how: Literal["all", "any", "not", "segment", "test"]
    holds: _Read | None = None
    reads: tuple[tuple[str, str, _Read], ...] = ()
    parts: tuple[_Node, ...] = ()


def explain_expression(text: str, context: ExpressionContext | None = None) -> Explain:
    """Compile the explanation of a condition that is known to compile.

    Raises
    ------
    ExpressionErrors
        When it does not.

    Examples
    --------
    >>> explain = explain_expression("orders() >= 3 and not did('Order Completed', '7d')")
    >>> clause = explain(Profile(orders=2), 0, "user-1")
    >>> clause.holds, [(part.text, part.holds, part.decided) for part in clause.parts]
    (False, [('orders() >= 3', False, True), ("not did('Order Completed', '7d')", True, False)])
    >>> clause.parts[0].readings
    (Reading(text='orders()', value='2'),)
    """
    node = _Builder(text, context or ExpressionContext()).build()
    return lambda profile, now_ms, user: _evaluate(node, profile, now_ms, user, True)


def _evaluate(node: _Node, profile: Profile, now_ms: int, user: str, decided: bool) -> Clause:
    if node.holds is not None:
        readings = tuple(Reading(text, _shown(read(profile, now_ms, user), kind)) for text, kind, read in node.reads)
        return Clause(node.text, bool(node.holds(profile, now_ms, user)), "test", decided, readings)
    parts = [_evaluate(part, profile, now_ms, user, decided) for part in node.parts]
    if node.how == "all":
        holds = all(part.holds for part in parts)
    elif node.how == "any":
        holds = any(part.holds for part in parts)
    else:
        holds = parts[0].holds is not (node.how == "not")
    if node.how in ("all", "any"):
        parts = [part if part.holds is holds else _beside(part) for part in parts]
    return Clause(node.text, holds, node.how, decided, (), tuple(parts))


def _beside(clause: Clause) -> Clause:
    """The clause as one that did not decide."""
    parts = tuple(_beside(part) for part in clause.parts)
    return msgspec.structs.replace(clause, decided=False, parts=parts)


class _Builder:
    """Turns one expression's syntax tree into clauses."""

    def __init__(self, text: str, context: ExpressionContext) -> None:
        self._context = context
        self._parser = Parser(text, context)
        self._parser.parse()  # refuses what does not compile, and knows the segments that are named

    def build(self) -> _Node:
        return self._node(self._parser.tree)

    def _node(self, tree: ast.expr) -> _Node:
        text = ast.unparse(tree)
        if isinstance(tree, ast.BoolOp):
            how: Literal["all", "any"] = "all" if isinstance(tree.op, ast.And) else "any"
            return _Node(text, how, parts=tuple(self._node(item) for item in tree.values))
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
            return _Node(text, "not", parts=(self._node(tree.operand),))
        if named := self._named(tree):
            inner = _Builder(self._context.segments[named].text, self._context).build()
            return _Node(text, "segment", parts=(inner,))
        holds = self._function(truth_code(self._parser.condition(tree)))
        return _Node(text, "test", holds, tuple(self._reads(tree)))

    @staticmethod
    def _named(tree: ast.expr) -> str:
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "in_segment":
            name = tree.args[0]
            return str(name.value) if isinstance(name, ast.Constant) else ""
        return ""

    def _reads(self, tree: ast.expr) -> Iterator[tuple[str, str, _Read]]:
        """The values behind a test: operands that are not literals, and what goes into them."""
        if isinstance(tree, ast.Compare):
            for operand in (tree.left, *tree.comparators):
                yield from self._values(operand)
        elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            if tree.func.id == "did":
                yield from self._values(_behind_did(tree))
            elif tree.func.id in OF_PERCENTILES:
                yield from self._values(tree.args[1])
                yield self._threshold(self._parser.measured[-1].cuts[0])
            else:
                for argument in tree.args:
                    yield from self._values(argument)
        else:
            yield from self._values(tree)

    def _values(self, tree: ast.expr) -> Iterator[tuple[str, str, _Read]]:
        try:
            value = self._parser.value(tree)
        except ExpressionError:
            return
        if value.literal is not None or (isinstance(tree, ast.Constant | ast.List | ast.Tuple)):
            return
        yield ast.unparse(tree), value.kind, self._function(value.code)
        if isinstance(tree, ast.BinOp):
            yield from self._values(tree.left)
            yield from self._values(tree.right)

    def _threshold(self, cut: Cut) -> tuple[str, str, _Read]:
        def read(_profile: Profile, _now_ms: int, _user: str) -> float | None:
            bucket = self._context.thresholds.get(cut.id)
            return None if bucket is None else middle_of(bucket)

        return f"{cut.name} % {'above' if cut.top else 'below'}", "number", read

    def _function(self, code: ast.expr) -> _Read:
        function = make_function("read", "p now_ms user", [ast.Return(code)])
        calls = segment_globals(self._parser.segments) | self._parser.calls
        read: _Read = load_functions([function], "explanation", calls)["read"]
        return read


def _behind_did(call: ast.Call) -> ast.expr:
    """What `did` looked at: the time since the event or, with where=, how many there were."""
    name = "count" if call.keywords else "since"
    arguments = call.args if call.keywords else call.args[:1]
    return ast.Call(ast.Name(name, ast.Load()), arguments, call.keywords)


def _shown(value: Any, kind: str) -> str:
    if kind == "duration":
        return format_age(value)
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)[:TEXT_CHARS_MAX]


def format_age(age_ms: float) -> str:
    """A span for people: its two largest units, rounded down; without end "never" (of one that grows, "not yet").

    Examples
    --------
    >>> format_age(273_600_000), format_age(42), format_age(float("inf"))
    ('3d 4h', '0s', 'never')
    """
    if age_ms == float("inf"):
        return "never"
    if age_ms == float("-inf"):
        return "not yet"
    rest, sign = int(abs(age_ms)), "-" if age_ms <= -UNITS_MS["s"] else ""
    shown: list[str] = []
    for unit in _AGE_UNITS:
        number, rest = divmod(rest, UNITS_MS[unit])
        if number or shown:
            shown.append(f"{number}{unit}" if number else "")
        if len(shown) == 2:
            break
    return sign + (" ".join(filter(None, shown)) or "0s")


def explain_hysteresis(segment: Segment, context: ExpressionContext | None = None) -> Explain:
    """The explanation of a segment with `until` or `stay`: what counts depends on whether the user is inside."""
    when = explain_expression(segment.expression, context)
    until = explain_expression(segment.until, context) if segment.until else None

    def explain(profile: Profile, now_ms: int, user: str) -> Clause:
        entered_ms = profile.segments.get(segment.id)
        if entered_ms is not None and now_ms < entered_ms + segment.stay_ms:
            inside = Reading("inside for", format_age(now_ms - entered_ms))
            return Clause(f"stay: {format_duration(segment.stay_ms)}", True, "test", True, (inside,))
        enters = when(profile, now_ms, user)
        if until is None:
            return enters
        leaves = until(profile, now_ms, user)
        stays = Clause(f"not ({segment.until})", not leaves.holds, "not", True, (), (leaves,))
        if entered_ms is not None:
            return stays
        holds = enters.holds and stays.holds
        parts = tuple(part if part.holds is holds else _beside(part) for part in (enters, stays))
        return Clause(f"{segment.expression} and not ({segment.until})", holds, "all", True, (), parts)

    return explain


def outline(clause: Clause, depth: int = 0) -> Iterator[tuple[int, Clause]]:
    """The clause and its parts from top to bottom, each with its depth."""
    yield depth, clause
    for part in clause.parts:
        yield from outline(part, depth + 1)


def deciding(clauses: Sequence[Clause], negated: bool = False) -> list[Clause]:
    """The tests that decided, of some clauses; one that stands under a `not` is given with it."""
    found: list[Clause] = []
    for clause in clauses:
        if clause.how != "test":
            found += deciding(clause.parts, negated is not (clause.how == "not"))
        elif clause.decided and negated:
            found.append(msgspec.structs.replace(clause, text=f"not {clause.text}", holds=not clause.holds))
        elif clause.decided:
            found.append(clause)
    return found
