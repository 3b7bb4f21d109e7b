"""What compiled expressions call: reads that never raise, whatever an event or a trait holds.

One rule throughout: a missing value (None) or a value of the wrong type makes a comparison False, so a condition
never fails at run time and never holds by accident. JSON's true and false are not numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from app.core.panes import NEVER_MS, Panes

LIST_ITEMS_MAX: Final = 200
NUMBER_MAX: Final = 1e15
_NUMBER_CHARS_MAX: Final = 40


def total_step_ms(state: Panes | None, current: int, size: int, pane_ms: int) -> int:
    """The earliest instant at which the clock may change a total."""
    if not state:
        return NEVER_MS
    result = NEVER_MS
    for at in range(1, len(state), 2):
        pane = state[at]
        if pane > current:
            return min(result, pane * pane_ms)
        if pane > current - size and result == NEVER_MS:
            result = (pane + size) * pane_ms
    return result


def did_change(last_ms: int | None, window_ms: int, now_ms: int) -> int:
    """The instant at which ``now - last < window`` ends by the clock."""
    if last_ms is None or last_ms + window_ms <= now_ms:
        return NEVER_MS
    return last_ms + window_ms


def linear_change(difference: float, slope: int, strict: bool, now_ms: int) -> int:
    """The earliest instant at which ``difference + slope * (t - now) > 0`` (or ``>= 0`` when not `strict`) flips.

    `difference` is integral or not finite; it grows by `slope` (not 0) each millisecond.
    """
    if not math.isfinite(difference):
        return NEVER_MS
    if slope < 0:
        difference, slope, strict = -difference, -slope, not strict
    missing = int(strict) - int(difference)  # what is lacking until the condition on the rising side holds
    return now_ms + -(-missing // slope) if missing > 0 else NEVER_MS


def _is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


def same(a: object, b: object) -> bool:
    """Equality of scalars of one type; a number never equals true."""
    if type(a) is type(b):
        return a == b if isinstance(a, str | int | float) else False
    return _is_number(a) and _is_number(b) and a == b


def differs(a: object, b: object) -> bool:
    """Both are there and not equal: a missing value is not known to differ."""
    return a is not None and b is not None and not same(a, b)


def _comparable(a: object, b: object) -> bool:
    return (type(a) is str and type(b) is str) or (_is_number(a) and _is_number(b))


def less(a: Any, b: Any) -> bool:
    """``a < b`` of two numbers or two texts."""
    return _comparable(a, b) and a < b


def less_or_same(a: Any, b: Any) -> bool:
    """``a <= b`` of two numbers or two texts."""
    return _comparable(a, b) and a <= b


def among(value: object, options: tuple[object, ...]) -> bool:
    """Whether `value` is one of a list's literals."""
    return any(same(value, option) for option in options)


def not_among(value: object, options: tuple[object, ...]) -> bool:
    """Whether `value` is there and none of a list's literals."""
    return value is not None and not among(value, options)


def contains(container: object, item: object) -> bool:
    """Whether a list has the scalar `item`, or a text the text `item` in it."""
    if type(container) is list:
        return any(same(entry, item) for entry in container[:LIST_ITEMS_MAX])
    return type(container) is str and type(item) is str and item in container


def lacks(container: object, item: object) -> bool:
    """Whether there is a list or a text, and `item` is not in it."""
    return isinstance(container, list | str) and item is not None and not contains(container, item)


def starts_with(value: object, prefix: str) -> bool:
    """Whether `value` is a text that starts with `prefix`."""
    return type(value) is str and value.startswith(prefix)


def lower(value: object) -> str | None:
    """A text in lower case; anything else is missing."""
    return value.lower() if type(value) is str else None


def number(value: object, default: float) -> float:
    """`value` as a number of at most `NUMBER_MAX`: itself, or what a text such as "3" says; else `default`."""
    if type(value) is int or type(value) is float:
        return value if -NUMBER_MAX <= value <= NUMBER_MAX else default
    if type(value) is str and len(value) <= _NUMBER_CHARS_MAX:
        try:
            read = float(value)
        except ValueError:
            return default
        return read if -NUMBER_MAX <= read <= NUMBER_MAX else default
    return default


def path(container: object, names: tuple[str, ...]) -> object:
    """A nested value; a list on the way gives the list of its items' values."""
    for at, name in enumerate(names):
        if isinstance(container, Mapping):
            container = container.get(name)
        elif type(container) is list:
            entries = container[:LIST_ITEMS_MAX]
            return [path(entry, names[at:]) for entry in entries if isinstance(entry, Mapping)]
        else:
            return None
    return container


def _as_floats(a: object, b: object) -> tuple[float, float] | None:
    if not (_is_number(a) and _is_number(b)):
        return None
    try:
        return float(a), float(b)  # type: ignore[arg-type]
    except OverflowError:
        return None


def plus(a: object, b: object) -> float | None:
    """The sum of two numbers; anything else is missing."""
    pair = _as_floats(a, b)
    return None if pair is None else pair[0] + pair[1]


def minus(a: object, b: object) -> float | None:
    """The difference of two numbers; anything else is missing."""
    pair = _as_floats(a, b)
    return None if pair is None else pair[0] - pair[1]


def times(a: object, b: object) -> float | None:
    """The product of two numbers; anything else is missing."""
    pair = _as_floats(a, b)
    return None if pair is None else pair[0] * pair[1]


def divide(a: object, b: object) -> float | None:
    """The quotient of two numbers; by zero it is missing."""
    pair = _as_floats(a, b)
    return None if pair is None or not pair[1] else pair[0] / pair[1]
