"""The front of the expression compiler: from text to typed values and truths.

Python's own parser reads the text (`ast.parse`, which executes nothing); a whitelist of node types is all that is
understood. Size and depth are bounded before anything walks the tree.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterable
from typing import Final, Literal

from app.core.expression_call import ParsedCall
from app.core.expression_compare import as_duration, compare
from app.core.expression_context import ANY_EVENT, TRAITS_EVENT, Expression, ExpressionContext
from app.core.expression_errors import ExpressionError, ExpressionErrors, Mismatch, nearest
from app.core.expression_functions import OF_PROFILE, OF_PROPERTIES, OF_VALUES, property_value, trait_value
from app.core.expression_hints import hint
from app.core.expression_ir import FALSE, TRUE, Atom, Combined, Negated, Scalar, Truth, Value, earliest, quote, read_by
from app.core.expression_percentiles import KEYWORDS
from app.core.expression_runtime import NUMBER_MAX
from app.core.percentiles import Measured
from app.core.plan import Feature

CHARS_MAX: Final = 2_000
NODES_MAX: Final = 400
DEPTH_MAX: Final = 24

Scope = Literal["profile", "properties"]

_COMPARISONS: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in",
}  # fmt: skip
_ARITHMETIC: Final[dict[type[ast.operator], tuple[str, str]]] = {
    ast.Add: ("plus", "A + B"), ast.Sub: ("minus", "A - B"), ast.Mult: ("times", ""), ast.Div: ("divide", ""),
}  # fmt: skip
_LITERAL_NAMES: Final = {"true": True, "false": False}


def parse_tree(text: str) -> tuple[ast.expr, str]:
    """The text's syntax tree, and the one line of which its columns speak. Raises `ExpressionErrors`."""
    if len(text) > CHARS_MAX:
        raise ExpressionErrors([ExpressionError(f"{len(text)} characters; an expression has at most {CHARS_MAX}")])
    line = " ".join(text.splitlines(keepends=False)) if "\r\n" not in text else text.replace("\r\n", "  ")
    line = line.replace("\n", " ").replace("\t", " ").replace("\x0c", " ")
    stripped = line.lstrip()
    indent = len(line) - len(stripped)
    if not stripped:
        raise ExpressionErrors([ExpressionError("the expression is empty")])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about literals that the whitelist refuses below
            tree = ast.parse(stripped, mode="eval").body
    except SyntaxError as exc:
        # Offset 0 is what Python reports for an end that came too early.
        offset = indent + (exc.offset - 1 if exc.offset else len(stripped.rstrip()))
        what = exc.msg
        if (meant := hint(line)) is not None:
            what, offset = meant
        raise ExpressionErrors([ExpressionError(f"not an expression: {what}", offset)]) from None
    except (ValueError, RecursionError, MemoryError):
        raise ExpressionErrors([ExpressionError("not an expression: too deeply nested, or not text")]) from None
    _check_bounds(tree)
    if "#" in stripped and _has_comment(stripped):
        raise ExpressionErrors([ExpressionError("a comment (#) cannot stand inside an expression", line.index("#"))])
    return tree, line


def _check_bounds(tree: ast.expr) -> None:
    level: list[ast.AST] = [tree]
    nodes = depth = 0
    while level:
        nodes += len(level)
        depth += 1
        if nodes > NODES_MAX or depth > DEPTH_MAX:
            raise ExpressionErrors([ExpressionError("the expression is too large: split it with in_segment()")])
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _has_comment(line: str) -> bool:
    quoted = ""
    for at, char in enumerate(line):
        if quoted:
            quoted = "" if char == quoted and line[at - 1] != "\\" else quoted
        elif char in "'\"":
            quoted = char
        elif char == "#":
            return True
    return False


class Parser:
    """One expression being compiled; collects what it reads and every mistake it can find.

    `features`, `events` and `segments` hold what the expression reads once `parse` has returned; `calls` are functions
    besides those of the segments that its code needs; `named` are events that the text names, and where.
    """

    def __init__(self, text: str, context: ExpressionContext) -> None:
        self.context = context
        self.features: dict[str, Feature] = {}
        self.events: set[str] = set()
        self.segments: dict[str, Expression] = {}
        self.open_scores: set[str] = set()
        self.measured: list[Measured] = []
        self.calls: dict[str, object] = {}
        self.named: list[tuple[str, int]] = []
        self.errors: list[ExpressionError] = []
        self.scope: Scope = "profile"
        self.tree, self.line = parse_tree(text)
        self._indent = len(self.line) - len(self.line.lstrip())

    def parse(self, scope: Scope = "profile") -> Truth:
        """The condition. Raises `ExpressionErrors`."""
        self.scope = scope
        truth = self._gathered(self.tree)
        if self.errors:
            raise ExpressionErrors(self.errors)
        return truth

    def fail(self, node: ast.AST, message: str, suggestion: str = "") -> ExpressionError:
        """An error that stands at `node`."""
        in_bytes = getattr(node, "col_offset", 0)
        before = self.line[self._indent :].encode()[:in_bytes].decode(errors="replace")
        return ExpressionError(message, self._indent + len(before), suggestion)

    def _gathered(self, node: ast.expr) -> Truth:
        try:
            return self.condition(node)
        except ExpressionError as error:
            self.errors.append(error)
            return FALSE

    def condition(self, node: ast.expr) -> Truth:
        """`node` as something that holds or does not. Raises `ExpressionError`."""
        if isinstance(node, ast.BoolOp):
            how: Literal["all", "any"] = "all" if isinstance(node.op, ast.And) else "any"
            return Combined(how, tuple(self._gathered(item) for item in node.values))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Negated(self.condition(node.operand))
        outer, self.events = self.events, set()
        try:
            truth = self._comparison(node) if isinstance(node, ast.Compare) else self._single(node)
            return read_by(truth, frozenset(self.events))
        finally:
            self.events |= outer

    def _single(self, node: ast.expr) -> Truth:
        found = self._any_form(node)
        if not isinstance(found, Value):
            return found
        if found.kind == "any":
            return Atom(quote("V is True", V=found.code))
        if found.kind == "bool":
            return TRUE if found.literal else FALSE
        raise self.fail(node, f"this is a {found.kind}, not a condition: compare it with something")

    def value(self, node: ast.expr) -> Value:
        """`node` as something to compare. Raises `ExpressionError`."""
        if isinstance(node, ast.BoolOp | ast.Compare) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        ):
            raise self.fail(node, "this is a condition, not a value")
        found = self._any_form(node)
        if isinstance(found, Value):
            return found
        raise self.fail(node, "this is a condition already: join it with and, or, not")

    def _any_form(self, node: ast.expr) -> Value | Truth:
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.List | ast.Tuple):
            return self._list(node)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._negative(node)
        raise self.fail(node, f"{type(node).__name__} is not part of the language")

    def _constant(self, node: ast.Constant) -> Value:
        value = node.value
        if isinstance(value, bool):
            return Value(kind="bool", code=node, literal=value)
        if isinstance(value, str):
            return Value(kind="text", code=node, literal=value)
        if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= NUMBER_MAX:
            return Value(kind="number", code=node, literal=value)
        raise self.fail(node, "a literal is a text, a number up to 1e15, true or false")

    def _list(self, node: ast.List | ast.Tuple) -> Value:
        items: list[Scalar] = []
        for element in node.elts:
            value = self.value(element)
            if value.literal is None or isinstance(value.literal, tuple):
                raise self.fail(element, "a list holds texts and numbers only")
            items.append(value.literal)
        if not items:
            raise self.fail(node, "the list is empty")
        return Value(kind="list", code=quote("ITEMS", ITEMS=tuple(items)), literal=tuple(items))

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in _LITERAL_NAMES:
            return Value(kind="bool", code=ast.Constant(_LITERAL_NAMES[name]), literal=_LITERAL_NAMES[name])
        if self.scope == "properties":
            return property_value((name,))
        if name in ("device", "timezone"):
            self.events |= {ANY_EVENT, TRAITS_EVENT}
            return Value(kind="text", code=quote("FIELD or None", FIELD=_field(name)), nullable=True)
        if name in self.context.traits:
            self.events.add(TRAITS_EVENT)
            return trait_value(name, self.context.traits[name])
        if name in OF_PROFILE:
            raise self.fail(node, f"{name} is a function: write {name}(...)")
        if name in self.context.segment_names:
            raise self.fail(node, f"{name} is a segment: write in_segment({name!r})")
        message = f"unknown name {name!r} (a trait is trait({name!r}), or declared under traits)"
        suggestion = nearest(name, ["device", "timezone", *self.context.traits, *_LITERAL_NAMES])
        if not suggestion and (function := nearest(name, OF_PROFILE, cutoff=0.8)):
            suggestion = f"{function}(...)"
        raise self.fail(node, message, suggestion)

    def _attribute(self, node: ast.Attribute) -> Value:
        names = [node.attr]
        inner = node.value
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if self.scope != "properties" or not isinstance(inner, ast.Name):
            raise self.fail(node, "a dotted name is a property, and stands in where= only")
        return property_value((inner.id, *reversed(names)))

    def _comparison(self, node: ast.Compare) -> Truth:
        operands = [node.left, *node.comparators]
        values = [self.value(operand) for operand in operands]
        truths: list[Truth] = []
        for at, operator in enumerate(node.ops):
            op = _COMPARISONS.get(type(operator))
            if op is None:
                raise self.fail(operands[at + 1], "'is' is not part of the language: write ==")
            try:
                truths.append(compare(values[at], op, values[at + 1]))
            except Mismatch as exc:
                at_fault = operands[at] if values[at].literal is not None else operands[at + 1]
                raise self.fail(at_fault, str(exc)) from None
        self._check_range(node, values)
        return truths[0] if len(truths) == 1 else Combined("all", tuple(truths))

    def _check_range(self, node: ast.Compare, values: list[Value]) -> None:
        """Refuse a chain between two numbers between which there is nothing."""
        if len(values) != 3:
            return
        low, high = values[0].literal, values[2].literal
        if not (isinstance(low, int | float) and isinstance(high, int | float)):
            return
        ops = {type(op) for op in node.ops}
        if ops <= {ast.Gt, ast.GtE}:
            low, high = high, low
        elif not ops <= {ast.Lt, ast.LtE}:
            return
        if low > high or (low == high and ops & {ast.Lt, ast.Gt}):
            middle = ast.unparse(node.comparators[0])
            around = f"{middle} >= {low} or {middle} < {high}"
            mend = f"; if it goes past midnight, write {around}" if middle == "hour()" else ""
            raise self.fail(node, f"this is never true: nothing is above {low} and below {high}{mend}")

    def _arithmetic(self, node: ast.BinOp) -> Value:
        if type(node.op) not in _ARITHMETIC:
            raise self.fail(node, "the operators are + - * /")
        function, native = _ARITHMETIC[type(node.op)]
        left, right = self.value(node.left), self.value(node.right)
        if "duration" in (left.kind, right.kind):
            return self._duration_sum(node, left, right)
        for operand, value in ((node.left, left), (node.right, right)):
            if value.kind not in ("number", "any"):
                raise self.fail(operand, f"a {value.kind} cannot be reckoned with; number(x) reads a text as one")
        native_fits = native and left.kind == right.kind == "number" and not (left.nullable or right.nullable)
        code = quote(native if native_fits else f"{function}(A, B)", A=left.code, B=right.code)
        return Value(kind="number", code=code, nullable=not native_fits, step=earliest(left.step, right.step))

    def _duration_sum(self, node: ast.BinOp, left: Value, right: Value) -> Value:
        try:
            left, right = as_duration(left), as_duration(right)
        except Mismatch as exc:
            raise self.fail(node, str(exc)) from None
        if not (left.kind == right.kind == "duration" and isinstance(node.op, ast.Add | ast.Sub)):
            raise self.fail(node, "a duration is added to or subtracted from a duration such as '1h'")
        add = isinstance(node.op, ast.Add)
        code = quote("A + B" if add else "A - B", A=left.code, B=right.code)
        return Value(kind="duration", code=code, slope=left.slope + right.slope * (1 if add else -1))

    def _negative(self, node: ast.UnaryOp) -> Value:
        value = self.value(node.operand)
        if value.kind not in ("number", "any"):
            raise self.fail(node, f"a {value.kind} has no negative")
        if isinstance(value.literal, int | float):
            return Value(kind="number", code=ast.Constant(-value.literal), literal=-value.literal)
        return Value(kind="number", code=quote("minus(0, V)", V=value.code), nullable=True, step=value.step)

    def _call(self, node: ast.Call) -> Value | Truth:
        if not isinstance(node.func, ast.Name):
            raise self.fail(node, "only the language's own functions can be called")
        name = node.func.id
        known = {**(OF_PROFILE if self.scope == "profile" else OF_PROPERTIES), **OF_VALUES}
        if name not in known:
            if name in OF_PROFILE:
                raise self.fail(node, f"{name}() reads the profile; where= reads the event's properties only")
            raise self.fail(node, f"unknown function {name!r}", nearest(name, known))
        fewest, most, has_where, builder = known[name]
        self._check_keywords(node, name, has_where)
        if any(isinstance(argument, ast.Starred) for argument in node.args) or not fewest <= len(node.args) <= most:
            if has_where and len(node.args) > most and isinstance(node.args[most], ast.Compare | ast.BoolOp):
                named = KEYWORDS.get(name, "where")
                raise self.fail(node.args[most], f"a condition is named: write {named}={ast.unparse(node.args[most])}")
            expected = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise self.fail(node, f"{name}() takes {expected} arguments, not {len(node.args)}")
        return builder(ParsedCall(self, node, name))

    def _check_keywords(self, node: ast.Call, name: str, has_where: bool) -> None:
        known = KEYWORDS.get(name, "where") if has_where else ""
        for keyword in node.keywords:
            if keyword.arg != known or not known:
                allowed = f"{known}= only" if known else "no named argument"
                raise self.fail(keyword, f"{name}() takes {allowed}", known)


def segments_named(tree: ast.expr) -> Iterable[str]:
    """The segments that an expression's ``in_segment`` calls name, before anything is compiled."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "in_segment":
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value


def properties_read(text: str) -> Iterable[tuple[str, int]]:
    """The properties that a condition over an event or item reads, and where. Raises `ExpressionErrors`."""
    tree, line = parse_tree(text)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in called and node.id not in _LITERAL_NAMES:
            yield node.id, len(line) - len(line.lstrip()) + node.col_offset


def _field(name: str) -> ast.expr:
    return ast.Attribute(ast.Name("p", ast.Load()), name, ast.Load())
