"""Bounds for what people put into messages before it may enter a row.

A row lives in memory, in RocksDB and in the changelog, so nothing in it may grow without a limit, and nothing in it
may be a value that MessagePack cannot hold (an integer of more than 64 bits, say).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NAME_CHARS_MAX: Final = 64
TEXT_CHARS_MAX: Final = 500
KEY_CHARS_MAX: Final = 128
ITEMS_MAX: Final = 24
DATA_BYTES_MAX: Final = 2_000
AMOUNT_MAX: Final = 1e9
_WHOLE_AMOUNT_MAX: Final = int(AMOUNT_MAX)
_INT_MAX = 2**63 - 1


def milli(value: object) -> int | None:
    """An amount in thousandths, or None when it is not a number in [0, `AMOUNT_MAX`].

    Amounts below zero are refused: a window's total would then be able to rise by the clock alone.

    Examples
    --------
    >>> milli(12.5), milli("12.5"), milli(float("nan")), milli(-1), milli(True)
    (12500, None, None, None, None)
    """
    if type(value) is float:
        return round(value * 1000) if 0.0 <= value <= AMOUNT_MAX else None
    if type(value) is int:
        return value * 1000 if 0 <= value <= _WHOLE_AMOUNT_MAX else None
    return None


def property_at(properties: Mapping[str, Any], path: tuple[str, ...]) -> object:
    """The value at a path of nested objects, None where there is none."""
    value: Any = properties
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def name_of(value: object) -> str:
    """A short text such as a category; empty when it is none or too long."""
    return value if type(value) is str and len(value) <= NAME_CHARS_MAX else ""


def key_of(value: object) -> str:
    """A trigger key, such as a cart id: text or a number, bounded; empty when it is neither."""
    if type(value) is str:
        return value[:KEY_CHARS_MAX]
    if type(value) is int:
        return str(value) if abs(value) <= _INT_MAX else ""
    return ""


def scalar(value: object) -> object | None:
    """The value when a row may hold it (text up to `TEXT_CHARS_MAX`, number, truth value), else None."""
    if type(value) is str:
        return value if len(value) <= TEXT_CHARS_MAX else None
    if type(value) is int:
        return value if -_INT_MAX <= value <= _INT_MAX else None
    return value if type(value) is float or type(value) is bool else None


def plain(value: object) -> object | None:
    """As `scalar`, and lists of up to `ITEMS_MAX` scalars."""
    if type(value) is list:
        return [item for item in value[:ITEMS_MAX] if scalar(item) is not None]
    return scalar(value)


def weight(value: object) -> int:
    """About how many bytes a plain value takes in a row."""
    if type(value) is str:
        return 4 * len(value) if not value.isascii() else len(value) + 3
    if type(value) is list:
        return 5 + sum(map(weight, value))
    return 9


def bounded(properties: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that a timer may keep: plain values up to `DATA_BYTES_MAX`; nested objects are left out."""
    kept: dict[str, Any] = {}
    room = DATA_BYTES_MAX
    for name, value in properties.items():
        if len(name) <= NAME_CHARS_MAX and (copy := plain(value)) is not None:
            room -= weight(name) + weight(copy)
            if room < 0:
                break
            kept[name] = copy
    return kept
