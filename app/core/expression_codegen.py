"""The back of the expression compiler: from a condition to two Python functions.

    evaluate(p, now_ms, user) -> bool        next_change(p, now_ms, user) -> int (ms)

The next change of "all of" is the earliest change of its items while it holds; while it does not, nothing can happen
before every item that fails has changed, so it is the LATEST change of those. "Any of" is the mirror image. That
keeps a user whose trait rules out a segment from having timers for its windows.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.core import expression_runtime, marks, rfm, scores, sketch
from app.core.expression_ir import Atom, Negated, Truth, is_clocked, quote, truth_code
from app.core.expression_known import PropertyIs
from app.core.ids import bucket
from app.core.local_time import hour_of_week
from app.core.panes import NEVER_MS
from app.core.schedule import schedule_change

Evaluate = Callable[..., bool]
NextChange = Callable[..., int]

# Reads worth doing once a call: local name to the expression that gives it.
_LOCALS: Final[dict[str, str]] = {
    "get": "p.features.get",
    "total": "p.features.total",
    "crossing_ms": "p.features.crossing_ms",
    "last": "p.last.get",
    "minute": "now_ms // 60000",
    "hour": "now_ms // 3600000",
    "day": "now_ms // 86400000",
}

_FUNCTIONS: Final[dict[str, Any]] = {
    **{
        name: getattr(expression_runtime, name)
        for name in (
            "total_step_ms", "did_change", "linear_change", "same", "differs", "less",
            "less_or_same", "among", "not_among", "contains", "lacks", "starts_with", "lower", "number", "path",
            "plus", "minus", "times", "divide",
        )
    },
    **{
        name: getattr(marks, name)
        for name in (
            "distinct", "distinct_crossing_ms", "distinct_step_ms", "followed_ms", "repeated_ms", "session_events",
            "session_minutes", "session_end_ms", "sessions", "sessions_step_ms",
        )
    },
    "above": sketch.above,
    "below": sketch.below,
    "hour_of_week": hour_of_week,
    "schedule_change": schedule_change,
    "persona_of": scores.persona_of,
    "score_of": scores.score_of,
    "score_step": scores.score_step,
    **{
        name: getattr(rfm, name)
        for name in ("recency_score", "recency_change", "recency_step", "upward_score", "stage", "stage_change")
    },
    "bucket": bucket,
    "min": min,
    "max": max,
    "INFINITE": float("inf"),
}  # fmt: skip


def never_changes(profile: object, now_ms: int, user: str) -> int:
    """The `next_change` of every condition that the clock cannot change: compare by identity to skip the call."""
    return NEVER_MS


class _Changes:
    """Emits statements that leave a condition's truth and next change in local variables."""

    def __init__(self) -> None:
        self.body: list[ast.stmt] = []
        self._count = 0

    def _assign(self, value: ast.expr) -> ast.expr:
        self._count += 1
        name = f"v{self._count}"
        self.body.append(ast.Assign([ast.Name(name, ast.Store())], value))
        return ast.Name(name, ast.Load())

    def emit(self, truth: Truth) -> tuple[ast.expr, ast.expr | None]:
        """The truth as a local name, and its next change (None: never)."""
        if isinstance(truth, Atom):
            return self._assign(truth.code), truth.change
        if isinstance(truth, Negated):
            value, change = self.emit(truth.item)
            return self._assign(ast.UnaryOp(ast.Not(), value)), change
        parts = [self.emit(item) for item in truth.items]
        everything = truth.how == "all"
        operator = ast.And() if everything else ast.Or()
        value = self._assign(ast.BoolOp(operator, [part for part, _ in parts]))
        if not is_clocked(truth):
            return value, None
        # `settled`: the combination is what every item is (all hold, or none does), so one flip ends it.
        settled = value if everything else ast.UnaryOp(ast.Not(), value)
        soonest = _combine("min", [change for _, change in parts if change is not None])
        return value, self._assign(ast.IfExp(settled, soonest, _latest(parts, everything)))


def _combine(function: str, values: list[ast.expr]) -> ast.expr:
    return values[0] if len(values) == 1 else ast.Call(ast.Name(function, ast.Load()), values, [])


def _latest(parts: list[tuple[ast.expr, ast.expr | None]], everything: bool) -> ast.expr:
    """The latest change of the items that stand in the way; an item that never changes stands there for ever."""
    in_way = "not V" if everything else "V"
    changes = [quote(f"C if {in_way} else 0", V=value, C=change) for value, change in parts if change is not None]
    latest = _combine("max", changes)
    fixed = [quote(in_way, V=value) for value, change in parts if change is None]
    if not fixed:
        return latest
    blocked = fixed[0] if len(fixed) == 1 else ast.BoolOp(ast.Or(), fixed)
    return ast.IfExp(blocked, ast.Constant(NEVER_MS), latest)


def make_function(name: str, parameters: str, body: list[ast.stmt]) -> ast.FunctionDef:
    """A function over our own statements, which reads what they need of the profile first."""
    used = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    reads: list[ast.stmt] = [
        ast.Assign([ast.Name(local, ast.Store())], quote(source)) for local, source in _LOCALS.items() if local in used
    ]
    arguments = [ast.arg(parameter) for parameter in parameters.split()]
    return ast.FunctionDef(
        name=name,
        args=ast.arguments(posonlyargs=[], args=arguments, kwonlyargs=[], kw_defaults=[], defaults=[]),
        body=reads + body,
        decorator_list=[],
    )


def load_functions(functions: list[ast.FunctionDef], label: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Compile functions; `extra` are globals besides the runtime's. Returns all globals."""
    module = ast.fix_missing_locations(ast.Module(body=list(functions), type_ignores=[]))
    namespace: dict[str, Any] = {"__builtins__": {}, **_FUNCTIONS, **extra}
    # The tree holds our templates and literals only (see expression_ir.quote); no text of a policy is compiled.
    exec(compile(module, f"<nudge {label}>", "exec"), namespace)  # noqa: S102
    return namespace


def generate(truth: Truth, label: str, extra: Mapping[str, Any]) -> tuple[Evaluate, NextChange]:
    """Compile a condition over a profile.

    Parameters
    ----------
    label
        What a traceback shows in place of a file's name.
    extra
        Compiled functions of other segments, by the names under which the condition calls them.
    """
    functions = [make_function("evaluate", "p now_ms user", [ast.Return(truth_code(truth))])]
    if is_clocked(truth):
        changes = _Changes()
        change = truth.change if isinstance(truth, Atom) else changes.emit(truth)[1]
        assert change is not None
        functions.append(make_function("next_change", "p now_ms user", [*changes.body, ast.Return(change)]))
    namespace = load_functions(functions, label, extra)
    return namespace["evaluate"], namespace.get("next_change", never_changes)


def generate_where(truth: Truth, label: str) -> Callable[[Mapping[str, Any]], bool]:
    """Compile a condition over an event's properties."""
    known = _property_is(truth)
    if known is not None:
        return known
    where: Callable[[Mapping[str, Any]], bool]
    where = load_functions([make_function("where", "q", [ast.Return(truth_code(truth))])], label, {})["where"]
    return where


def _property_is(truth: Truth) -> PropertyIs | None:
    """The condition for the compiled core, if all it asks is whether a property is some text."""
    match truth.code if isinstance(truth, Atom) else None:
        case ast.Compare(
            left=ast.Call(func=ast.Attribute(value=ast.Name("q"), attr="get"), args=[ast.Constant(str(name))]),
            ops=[ast.Eq()],
            comparators=[ast.Constant(str(text))],
        ):
            return PropertyIs(name, text)
    return None
