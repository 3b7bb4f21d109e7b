"""JSON to structs, with one kind of exception for whatever is wrong with the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from schemas.events import Rejected

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


def json_reader(kind: type[T], bytes_max: int) -> Callable[[bytes | None], T | Rejected]:
    """A function from a record's value to `kind`, or to why it is none; it never raises."""
    decode = json_decoder(kind)

    def decode_or_say(raw: bytes | None) -> T | Rejected:
        if not raw:
            return Rejected("empty", "the record has no value")
        if len(raw) > bytes_max:
            return Rejected("too_large", f"{len(raw)} bytes; at most {bytes_max}")
        try:
            return decode(raw)
        except msgspec.ValidationError as exc:
            return Rejected("invalid_field", str(exc))
        except msgspec.DecodeError as exc:
            return Rejected("malformed_json", str(exc))

    return decode_or_say
