"""A call's arguments, read as the builders of `expression_functions` ask for them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from app.core.campaign import Where
from app.core.expression_codegen import generate_where, load_functions, make_function
from app.core.expression_context import ANY_EVENT, Expression
from app.core.expression_errors import ExpressionError, nearest
from app.core.expression_ir import Atom, Scalar, Truth, Value, quote, truth_code
from app.core.expression_percentiles import CUT_GLOBAL
from app.core.ids import stable_id
from app.core.percentiles import CountedValue, Cut, Measured
from app.core.plan import Feature
from app.core.scores import open_score
from schemas.events import NAME_CHARS_MAX

if TYPE_CHECKING:
    from app.core.expression_parser import Parser


class ParsedCall:
    """A call's arguments, read as a builder of `expression_functions` asks for them."""

    def __init__(self, parser: Parser, node: ast.Call, name: str) -> None:
        self.context = parser.context
        self._parser = parser
        self._node = node
        self._name = name
        self._measured: tuple[CountedValue, frozenset[int]]

    def fail(self, message: str, at: int = -1) -> ExpressionError:
        """An error that stands at the argument `at`, or at the call."""
        node: ast.expr = self._node.args[at] if 0 <= at < len(self._node.args) else self._node
        return self._parser.fail(node, message)

    def text(self, at: int, what: str) -> str:
        """The positional argument `at`, which must be a text literal."""
        if at >= len(self._node.args):
            raise self.fail(f"{self._name}() needs {what}")
        node = self._node.args[at]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
            return node.value
        raise self.fail(f"{self._name}() needs {what}, written as a text in quotes", at)

    def optional_text(self, at: int, what: str) -> str | None:
        """As `text`, or None when the call has fewer arguments."""
        return self.text(at, what) if at < len(self._node.args) else None

    def event(self, at: int) -> str:
        """The positional argument `at`, an event's name."""
        name = self.text(at, "an event's name")
        self.check_event(name, at)
        return name

    def check_event(self, event: str, at: int) -> None:
        """Raise when the name is too long, or the policy lists its events and this is none of them."""
        if len(event) > NAME_CHARS_MAX:
            raise self.fail(f"an event's name has at most {NAME_CHARS_MAX} characters", at)
        if event == ANY_EVENT:
            return
        known = self.context.event_names
        if known is not None and event not in known:
            error = self.fail(f"unknown event {event!r} (the policy lists its events)", at)
            error.suggestion = nearest(event, known)
            raise error
        self._parser.named.append((event, self.fail("", at).offset))

    def number(self, at: int, what: str, default: float) -> float:
        """The positional argument `at`, a number literal."""
        if at >= len(self._node.args):
            return default
        literal = self._parser.value(self._node.args[at]).literal
        if literal is None or isinstance(literal, bool | str | tuple):
            raise self.fail(f"{self._name}() needs {what}", at)
        return literal

    def literal(self, at: int) -> Scalar | None:
        """The positional argument `at`, any scalar literal; None when the call has fewer arguments."""
        if at >= len(self._node.args):
            return None
        value = self._parser.value(self._node.args[at])
        if value.literal is None or isinstance(value.literal, tuple):
            raise self.fail("this must be a text, a number, true or false", at)
        return value.literal

    def value(self, at: int, what: str) -> Value:
        """The positional argument `at`, any value but a list or a duration."""
        value = self._parser.value(self._node.args[at])
        if value.kind in ("list", "duration"):
            raise self.fail(f"{self._name}() needs {what}, not a {value.kind}", at)
        return value

    def where(self) -> tuple[Where | None, str]:
        """The keyword `where` compiled, and its canonical text."""
        if not self._node.keywords:
            return None, ""
        node = self._node.keywords[0].value
        parser = self._parser
        outer, parser.scope = parser.scope, "properties"
        failed_before = len(parser.errors)
        try:
            truth = parser.condition(node)
        finally:
            parser.scope = outer
        if len(parser.errors) > failed_before:
            raise parser.errors.pop()
        return generate_where(truth, "where"), ast.unparse(node)

    def feature(self, feature: Feature) -> Feature:
        """Note that the expression reads this feature; returns it with its id."""
        return self._parser.features.setdefault(feature.text, replace(feature, id=stable_id(feature.text)))

    def reads(self, *events: str) -> None:
        """Note that these events can change the expression."""
        self._parser.events.update(events)

    def flag(self, name: str) -> float:
        """The share of users who have a feature flag of the policy."""
        share = self.context.flags.get(name)
        if share is None:
            error = self.fail(f"unknown flag {name!r}", 0)
            error.suggestion = nearest(name, self.context.flags)
            raise error
        return share

    def check_model(self, name: str) -> None:
        """Raise when the policy has no model of that name that says how likely something is to happen."""
        known = self.context.models
        if known is None or name in known:
            return
        if name == self.context.open_model:
            raise self.fail(f"the model {name!r} learns opens: write open_probability()", 0)
        error = self.fail(f"the policy has no model {name!r} with a horizon", 0)
        error.suggestion = nearest(name, known)
        if not error.suggestion:
            example = "{horizon: 30d}" if name == "churn" else "{event: Order Completed, horizon: 7d}"
            error.message += f"; write under models, for example, {name}: {example}"
        raise error

    def open_score(self, name: str) -> str:
        """Note that the open model is asked about a campaign or a category (empty: all); returns the score's name."""
        known = {*self.context.campaigns, *self.context.campaigns.values()}
        if name and name not in known:
            error = self.fail(f"no campaign and no category is called {name!r}", 0)
            error.suggestion = nearest(name, known)
            raise error
        if not known:
            raise self.fail("the policy has no campaign that could be opened")
        self._parser.open_scores.add(name)
        return open_score(name)

    def measured(self, at: int) -> tuple[Value, Truth | None, str]:
        """The positional argument `at`, a number, the condition `among` if there is one, and both as text."""
        parser, node = self._parser, self._node
        outer = parser.features, parser.segments
        parser.features, parser.segments = {}, {}
        try:
            value = parser.value(node.args[at])
            if value.kind != "number" or value.literal is not None:
                hint = "; number(x) reads a trait as one" if value.kind == "any" else ""
                raise self.fail(f"{self._name}() needs a number that differs between users{hint}", at)
            among = parser.condition(node.keywords[0].value) if node.keywords else None
            self._measured = self._compiled(value, among)
        finally:
            parser.features = {**outer[0], **parser.features}
            parser.segments = {**outer[1], **parser.segments}
        text = ast.unparse(node.args[at])
        return value, among, f"{text} among {ast.unparse(node.keywords[0].value)}" if node.keywords else text

    def _compiled(self, value: Value, among: Truth | None) -> tuple[CountedValue, frozenset[int]]:
        """The function that gives a user's number, None for those not among the counted, and what it reads."""
        parser = self._parser
        code = value.code if among is None else quote("V if A else None", V=value.code, A=truth_code(among))
        calls = segment_globals(parser.segments) | parser.calls
        functions = [make_function("number_of", "p now_ms user", [ast.Return(code)])]
        reads = {feature.id for feature in parser.features.values()}
        reads.update(feature.id for inner in parser.segments.values() for feature in inner.features)
        return load_functions(functions, self._name, calls)["number_of"], frozenset(reads)

    def threshold(self, cut: Cut, text: str) -> None:
        """Note that the expression asks for a threshold of the number `measured` last."""
        number_of, reads = self._measured
        self._parser.measured.append(Measured(text, number_of, reads, (cut,)))
        self._parser.calls[CUT_GLOBAL] = self.context.thresholds.get

    def segment(self, name: str) -> Truth:
        """Membership of another segment: its own functions are called, so truth and time of change agree with it."""
        expression = self.context.segments.get(name)
        if expression is None:
            error = self.fail(f"unknown segment {name!r}", 0)
            error.suggestion = nearest(name, self.context.segment_names)
            raise error
        self._parser.segments[name] = expression
        self.reads(*expression.events)
        called = quote("CALLED(p, now_ms, user)", CALLED=ast.Name(segment_global(name), ast.Load()))
        if not expression.clocked:
            return Atom(called)
        change = ast.Name(f"{segment_global(name)}_change", ast.Load())
        return Atom(called, quote("CALLED(p, now_ms, user)", CALLED=change))


def segment_global(name: str) -> str:
    """The global name under which compiled code calls another segment."""
    return f"segment_{stable_id(name)}"


def segment_globals(segments: Mapping[str, Expression]) -> dict[str, object]:
    """What the globals of `segment_global` stand for."""
    found: dict[str, object] = {}
    for name, expression in segments.items():
        found[segment_global(name)] = expression.evaluate
        found[f"{segment_global(name)}_change"] = expression.next_change
    return found
