"""What a builder of a function of the language is given: the call, as the parser hands it over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from app.core.campaign import Where
from app.core.expression_context import ExpressionContext
from app.core.expression_errors import ExpressionError
from app.core.expression_ir import Scalar, Truth, Value
from app.core.percentiles import Cut
from app.core.plan import Feature


class Call(Protocol):
    """A call in an expression, as the parser hands it to a builder. The readers raise `ExpressionError`."""

    context: ExpressionContext

    def text(self, at: int, what: str) -> str:
        """The positional argument `at`, which must be a text literal."""
        ...

    def optional_text(self, at: int, what: str) -> str | None:
        """As `text`, or None when the call has fewer arguments."""
        ...

    def event(self, at: int) -> str:
        """The positional argument `at`, an event's name."""
        ...

    def check_event(self, event: str, at: int) -> None:
        """Raise when the policy lists its events and this is none of them."""
        ...

    def flag(self, name: str) -> float:
        """The share of users who have a feature flag of the policy."""
        ...

    def check_model(self, name: str) -> None:
        """Raise when the policy has no model of that name with a horizon."""
        ...

    def open_score(self, name: str) -> str:
        """Note that the open model is asked about a campaign or a category (empty: all); returns the score's name."""
        ...

    def measured(self, at: int) -> tuple[Value, Truth | None, str]:
        """The positional argument `at`, a number, the condition `among` if there is one, and both as text."""
        ...

    def threshold(self, cut: Cut, text: str) -> None:
        """Note that the expression asks for a threshold of the number `measured` last."""
        ...

    def segment(self, name: str) -> Truth:
        """Membership of another segment."""
        ...

    def number(self, at: int, what: str, default: float) -> float:
        """The positional argument `at`, a number literal."""
        ...

    def literal(self, at: int) -> Scalar | None:
        """The positional argument `at`, any scalar literal; None when the call has fewer arguments."""
        ...

    def value(self, at: int, what: str) -> Value:
        """The positional argument `at`, any value."""
        ...

    def where(self) -> tuple[Where | None, str]:
        """The keyword `where` compiled, and its canonical text."""
        ...

    def feature(self, feature: Feature) -> Feature:
        """Note that the expression reads this feature; returns it with its id."""
        ...

    def reads(self, *events: str) -> None:
        """Note that these events can change the expression."""
        ...

    def fail(self, message: str, at: int = -1) -> ExpressionError:
        """An error that stands at the argument `at`, or at the call."""
        ...


Builder = Callable[[Call], "Value | Truth"]
