"""JSON to structs, with one kind of exception for whatever is wrong with the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")


def json_decoder(kind: type[T]) -> Callable[[bytes], T]:
    """A function from JSON to `kind` that raises `msgspec.MsgspecError`, and nothing else.

    msgspec lets text that is no UTF-8 and too deep a nesting through as Python's own exceptions: whoever catches what
    msgspec documents would be ended by one such record.

    Examples
    --------
    >>> decode = json_decoder(dict[str, str])
    >>> decode(b'{"a": "b"}')
    {'a': 'b'}
    >>> decode(b'{"a": "\\xff"}')
    Traceback (most recent call last):
        ...
    msgspec.DecodeError: not UTF-8, or nested too deeply
    """
    decode = msgspec.json.Decoder(kind).decode

    def decode_or_refuse(raw: bytes) -> T:
        try:
            return decode(raw)
        except (UnicodeDecodeError, RecursionError):
            raise msgspec.DecodeError("not UTF-8, or nested too deeply") from None

    return decode_or_refuse
