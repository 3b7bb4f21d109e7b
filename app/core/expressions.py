"""The expression language of policies: text in, two fast Python functions out.

The stages: `expression_parser` reads the text into typed truths (`expression_ir`) with the functions of
`expression_functions` and the comparisons of `expression_compare`; `expression_codegen` turns a truth into code whose
helpers are in `expression_runtime`. docs/policy.md is the language's reference.
"""

from __future__ import annotations

from app.core.campaign import Where
from app.core.expression_call import segment_globals
from app.core.expression_codegen import generate, generate_where
from app.core.expression_context import ANY_EVENT, Expression, ExpressionContext
from app.core.expression_ir import Condition, is_clocked
from app.core.expression_parser import Parser, parse_tree, segments_named
from app.core.percentiles import joined
from app.core.plan import Feature


def compile_expression(text: str, context: ExpressionContext | None = None, label: str = "expression") -> Expression:
    """Compile a condition over a profile.

    Raises
    ------
    ExpressionErrors
        With every mistake found, each with its place in the text.

    Examples
    --------
    >>> from app.core.profile import Profile
    >>> many = compile_expression("orders() >= 3 and not did('Application Opened', '7d')")
    >>> many.evaluate(Profile(orders=3), 0, "user-1")
    True
    """
    parser = Parser(text, context or ExpressionContext())
    truth = parser.parse()
    calls = segment_globals(parser.segments) | parser.calls
    evaluate, next_change = generate(truth, label, calls)
    features: dict[str, Feature] = {}
    for expression in parser.segments.values():
        features.update((feature.text, feature) for feature in expression.features)
    features.update(parser.features)
    measured = [one for expression in parser.segments.values() for one in expression.measured]
    return Expression(
        text=text,
        evaluate=evaluate,
        next_change=next_change,
        features=tuple(features.values()),
        # A condition that no event changes (a random bucket, say) is asked at every event: when else?
        events=frozenset(parser.events or {ANY_EVENT}),
        clocked=is_clocked(truth),
        condition=Condition(truth, calls),
        open_scores=frozenset(parser.open_scores),
        measured=joined([*measured, *parser.measured]),
        named=tuple(parser.named),
    )


def compile_where(text: str, context: ExpressionContext | None = None) -> Where:
    """Compile a condition over an event's properties. Raises `ExpressionErrors`."""
    parser = Parser(text, context or ExpressionContext())
    return generate_where(parser.parse("properties"), "where")


def referenced_segments(text: str) -> frozenset[str]:
    """The segments that an expression names with ``in_segment``. Raises `ExpressionErrors` when it does not parse."""
    tree, _line = parse_tree(text)
    return frozenset(segments_named(tree))
