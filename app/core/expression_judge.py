"""One function for everything that an event has to ask of a row: which of its segments changed, and what comes due.

    judge(p, now_ms, user, due_ms) -> (due_ms, [(segment, inside), ...] or None)

It is the segments' own conditions, one after the other, with each windowed total read once. And it does not ask when
the clock will next change a condition that the event can only have postponed. That is so when every part of the
condition that the event can change is `Atom.postponed` and was not flipped by it: a part that would have held on until
some instant still does, and so does every combination of such parts.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeGuard

from app.core.expression_codegen import load_functions, make_function
from app.core.expression_ir import Atom, Combined, Negated, Suspect, Truth, atoms, is_clocked, quote, truth_code
from app.core.expression_known import Known, Opposite, Several
from app.core.panes import NEVER_MS
from app.core.plan import Segment
from app.core.profile import Profile

_ANY_EVENT: Final = "*"
_OFTEN: Final = 3

# What reads the row, or compares: without it a condition may depend on the hour or on who the user is.
_OF_THE_ROW: Final = frozenset({
    "get", "last", "total", "same", "differs", "less", "less_or_same", "among", "not_among", "contains", "lacks",
    "starts_with", "lower", "number", "path", "plus", "minus", "times", "divide", "min", "max", "recency_score",
    "upward_score", "distinct", "followed_ms", "repeated_ms", "did_change",
})  # fmt: skip
_ANY_TIMES_MS: Final = (10**12, 2 * 10**12, 4 * 10**12)
"""The years 2001, 2033 and 2096: what only grows or falls with time and is the same at each is so for ever."""

Moves = list[tuple[Segment, bool]]
Judge = Callable[[Profile, int, str, int], tuple[int, Moves | None]]

# An event newer than the clock was folded when another worker's clock told the time: then nothing is taken for granted.
_HEAD = """
moves = None
held = p.segments
doubt = p.seen_ms > now_ms
"""
_READ = "TOTAL = total(ID, PANE, SIZE)"
_FIXED = """
inside = TRUTH
if inside is not (ID in held):
    moves = [(SEGMENT, inside)] if moves is None else [*moves, (SEGMENT, inside)]
"""
_CLOCKED = """
inside = TRUTH
if inside is not (ID in held):
    moves = [(SEGMENT, inside)] if moves is None else [*moves, (SEGMENT, inside)]
    at_ms = CHANGE(p, now_ms, user)
    if at_ms < due_ms:
        due_ms = at_ms
elif ASKED:
    at_ms = CHANGE(p, now_ms, user)
    if at_ms < due_ms:
        due_ms = at_ms
"""


def make_judge(segments: Sequence[Segment], event: str | None) -> Judge:
    """Compile the question for the segments that `event` can change ("$traits": an identify; None: a row is new).

    The function gives the earlier of `due_ms` and the next changes that it asked for, and the segments whose answer
    is not what the row says, in the order given. It changes nothing.
    """
    names: dict[str, Any] = {}
    parts: list[tuple[str, dict[str, Any]]] = []
    reads = _Reads()
    for at, segment in enumerate(segments):
        names[f"segment{at}"], names[f"change{at}"] = segment, segment.next_change
        if segment.condition is None:
            names[f"evaluate{at}"] = segment.evaluate
            truth = quote("EVALUATE(p, now_ms, user)", EVALUATE=_name(f"evaluate{at}"))
        else:
            names.update(segment.condition.calls)
            truth = truth_code(segment.condition.truth)
        filling: dict[str, Any] = {"TRUTH": truth, "ID": segment.id, "SEGMENT": _name(f"segment{at}")}
        if segment.reads_clock:
            filling |= {"CHANGE": _name(f"change{at}"), "ASKED": _asked(segment, event)}
        parts.append((_CLOCKED if segment.reads_clock else _FIXED, filling))
        reads.count(truth)
    questions = [
        statement
        for template, filling in parts
        for statement in _statements(template, **{name: reads.shared(part) for name, part in filling.items()})
    ]
    answer = ast.Return(quote("(due_ms, moves)"))
    body = [*_statements(_HEAD), *reads.statements(), *questions, answer]
    judge: Judge
    judge = load_functions([make_function("judge", "p now_ms user due_ms", body)], f"judge {event}", names)["judge"]
    return judge


def known_condition(segment: Segment) -> Known | None:
    """The segment's condition for the compiled core, if it knows all of its parts."""
    condition = segment.condition
    return None if condition is None or condition.calls or segment.cuts else _known(condition.truth)


def _known(truth: Truth) -> Known | None:
    if isinstance(truth, Atom):
        return truth.known
    if isinstance(truth, Negated):
        item = _known(truth.item)
        return None if item is None else Opposite(item)
    items = [item for item in map(_known, truth.items) if item is not None]
    return Several(items, truth.how == "all") if len(items) == len(truth.items) else None


def when_new(segment: Segment) -> bool | None:
    """Whether everybody (True) or nobody (False) belongs to the segment before an event that it reads, whoever and
    whenever it is; None when that is not so.

    Then a new row need not be asked about it, unless its first event is one of those.
    """
    condition = segment.condition
    if condition is None or condition.calls or segment.events & {_ANY_EVENT}:
        return None
    code = truth_code(condition.truth)
    called = {node.func.id for node in ast.walk(code) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    named = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}
    if "user" in named or not called <= _OF_THE_ROW:
        return None
    nobody = Profile()
    if any(segment.next_change(nobody, at_ms, "") != NEVER_MS for at_ms in _ANY_TIMES_MS):
        return None
    answers = {bool(segment.evaluate(nobody, at_ms, "")) for at_ms in _ANY_TIMES_MS}
    return answers.pop() if len(answers) == 1 else None


def _touched(truth: Truth, event: str) -> list[Atom]:
    """The parts that the event can change."""
    return [atom for atom in atoms(truth) if atom.events is None or not atom.events.isdisjoint((event, _ANY_EVENT))]


def suspects(segment: Segment, event: str) -> list[Suspect] | None:
    """One of them shows after every event of this name that flipped a part of the condition.

    Then the segment need not be judged after the others, until the clock comes to its next change: a count that has
    gone from 7 to 8 says nothing new to "at least 3". None when nothing shows it; what others' percentiles and other
    segments do to it is not seen here.
    """
    if segment.condition is None or segment.condition.calls or segment.cuts:
        return None
    found: list[Suspect] = []
    for atom in _touched(segment.condition.truth, event):
        if atom.suspect is None:
            return None
        found.append(atom.suspect)
    return found or None


def _asked(segment: Segment, event: str | None) -> ast.expr:
    """After an event that did not change the answer: whether the next change may have come nearer."""
    if event is None:
        return ast.Constant(True)
    if segment.condition is None:
        return _name("doubt") if event in segment.postponed_by else ast.Constant(True)
    truth = segment.condition.truth
    touched = _touched(truth, event)
    if not all(atom.postponed for atom in touched):
        return ast.Constant(True)
    flips = [atom.flipped for atom in touched if atom.flipped is not None]
    flipped: ast.expr = ast.Constant(True)
    if len(flips) == len(touched):
        flipped = ast.BoolOp(ast.Or(), [_name("doubt"), *flips])
    if _is_plain(truth):
        return _name("doubt")  # it is its only part: that did not flip
    if not isinstance(truth, Combined) or not all(_is_plain(item) for item in truth.items):
        return flipped
    # While all hold (or none of "any" does), as before the event, none was flipped.
    loose = _name("inside") if truth.how == "any" else ast.UnaryOp(ast.Not(), _name("inside"))
    return quote("doubt or LOOSE and FLIPPED", LOOSE=loose, FLIPPED=_all_of([*_open(truth, touched), flipped]))


def _open(truth: Combined, touched: list[Atom]) -> list[ast.expr]:
    """Conditions on what neither the event nor the clock can change: if one fails, the next change never comes."""
    fixed = [item for item in truth.items if not is_clocked(item) and not any(atom in touched for atom in atoms(item))]
    return [truth_code(item if truth.how == "all" else Negated(item)) for item in fixed]


def _all_of(conditions: list[ast.expr]) -> ast.expr:
    return conditions[0] if len(conditions) == 1 else ast.BoolOp(ast.And(), conditions)


def _is_plain(truth: Truth) -> bool:
    return isinstance(truth, Atom) or (isinstance(truth, Negated) and _is_plain(truth.item))


class _Reads:
    """The windowed totals of several conditions; those that are wanted often enough are read into a local."""

    def __init__(self) -> None:
        self._wanted: Counter[str] = Counter()
        self._calls: dict[str, ast.Call] = {}

    def count(self, truth: ast.expr) -> None:
        """Note what a condition reads. A total that it reads first is always wanted, another perhaps."""
        for node in ast.walk(truth):
            if _is_total(node):
                self._calls[ast.dump(node)] = node
                self._wanted[ast.dump(node)] += 1
        first = truth
        while isinstance(first, ast.BoolOp | ast.Compare | ast.UnaryOp):
            first = _first_of(first)
        if _is_total(first):
            self._wanted[ast.dump(first)] += _OFTEN

    def _local(self, call: ast.Call) -> str:
        text = ast.dump(call)
        return f"total{list(self._calls).index(text)}" if self._wanted[text] >= _OFTEN else ""

    def shared(self, code: object) -> Any:
        """The code, with the local in place of each shared total."""
        if not isinstance(code, ast.expr):
            return code
        return _Share(self._local).visit(copy.deepcopy(code))

    def statements(self) -> list[ast.stmt]:
        """What reads the shared totals."""
        found: list[ast.stmt] = []
        for call in self._calls.values():
            if local := self._local(call):
                feature, pane, size = call.args
                found += _statements(_READ, TOTAL=_name(local), ID=feature, PANE=pane, SIZE=size)
        return found


def _is_total(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "total"


def _first_of(node: ast.BoolOp | ast.Compare | ast.UnaryOp) -> ast.expr:
    """The operand that is evaluated first."""
    if isinstance(node, ast.BoolOp):
        return node.values[0]
    return node.left if isinstance(node, ast.Compare) else node.operand


class _Share(ast.NodeTransformer):
    def __init__(self, local: Callable[[ast.Call], str]) -> None:
        self.local = local

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _is_total(node) and (local := self.local(node)):
            return _name(local)
        return self.generic_visit(node)


class _Fill(ast.NodeTransformer):
    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts

    def visit_Name(self, node: ast.Name) -> ast.expr:
        part = self.parts.get(node.id, node)
        if isinstance(part, ast.Name):
            return ast.Name(part.id, node.ctx)
        return part if isinstance(part, ast.expr) else ast.Constant(part)


def _statements(template: str, **parts: Any) -> list[ast.stmt]:
    """As `quote`, for statements; the template is ours."""
    module = _Fill(parts).visit(ast.parse(template))
    return list(module.body)


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())
