"""Integers of 64 bits, packed: what a row holds many of.

In memory they are a `vec`, one piece of memory with no object a number; encoded they are a MessagePack array, which
msgspec reads and writes when the core is not compiled. Compiled, a number costs a few cycles either way.
"""

from __future__ import annotations

from typing import Final

import msgspec
from librt.strings import BytesWriter, read_i16_be, read_i32_be, read_i64_be, write_i16_be, write_i32_be, write_i64_be
from librt.vecs import append, vec
from mypy_extensions import i16, i32, i64, u8

_COMPILED: Final = not __file__.endswith(".py")

_POSITIVE: Final = 0x80
_ARRAY: Final = 0x90
_ARRAY_END: Final = 0xA0
_UINT8: Final = 0xCC
_UINT16: Final = 0xCD
_UINT32: Final = 0xCE
_UINT64: Final = 0xCF
_INT8: Final = 0xD0
_INT16: Final = 0xD1
_INT32: Final = 0xD2
_INT64: Final = 0xD3
_ARRAY16: Final = 0xDC
_ARRAY32: Final = 0xDD
_NEGATIVE: Final = 0xE0
"""First bytes of MessagePack: of the values themselves, or of what they name."""

_ROOM: Final = 6
"""For what is appended next: the panes of an event."""

_decode = msgspec.msgpack.Decoder(list[int]).decode
_encode = msgspec.msgpack.Encoder().encode


def pack(numbers: vec[i64]) -> bytes:
    """The same bytes as msgspec gives for a list of them."""
    return _packed(numbers) if _COMPILED else _encode(list(numbers))


def unpack(raw: bytes) -> vec[i64]:
    """Raises `msgspec.DecodeError`, also for a number of more than 64 bits with their sign."""
    try:
        return _unpacked(raw) if _COMPILED else vec[i64](_decode(raw))
    except (IndexError, OverflowError) as exc:
        raise msgspec.DecodeError("no packed numbers") from exc


def as_i32(number: i64) -> i32:
    """The same 32 bits with a sign: interpreted, an `i32` takes nothing else."""
    return i32(number - (1 << 32) if number >= 1 << 31 else number)


def as_i16(number: i64) -> i16:
    """The same 16 bits with a sign."""
    return i16(number - (1 << 16) if number >= 1 << 15 else number)


def _packed(numbers: vec[i64]) -> bytes:
    writer = BytesWriter()
    count = len(numbers)
    if count < _ARRAY_END - _ARRAY:
        writer.append(u8(_ARRAY + count))
    elif count < 1 << 16:
        writer.append(u8(_ARRAY16))
        write_i16_be(writer, as_i16(count))
    else:
        writer.append(u8(_ARRAY32))
        write_i32_be(writer, as_i32(count))
    for number in numbers:
        if number < 0:
            _put_negative(writer, number)
        elif number < _POSITIVE:
            writer.append(u8(number))
        elif number < 1 << 8:
            writer.append(u8(_UINT8))
            writer.append(u8(number))
        elif number < 1 << 16:
            writer.append(u8(_UINT16))
            write_i16_be(writer, as_i16(number))
        elif number < 1 << 32:
            writer.append(u8(_UINT32))
            write_i32_be(writer, as_i32(number))
        else:
            writer.append(u8(_UINT64))
            write_i64_be(writer, number)
    return writer.getvalue()


def _put_negative(writer: BytesWriter, number: i64) -> None:
    if number >= _NEGATIVE - 256:
        writer.append(u8(256 + number))
    elif number >= -(1 << 7):
        writer.append(u8(_INT8))
        writer.append(u8(256 + number))
    elif number >= -(1 << 15):
        writer.append(u8(_INT16))
        write_i16_be(writer, i16(number))
    elif number >= -(1 << 31):
        writer.append(u8(_INT32))
        write_i32_be(writer, i32(number))
    else:
        writer.append(u8(_INT64))
        write_i64_be(writer, number)


def _unpacked(raw: bytes) -> vec[i64]:
    end: i64 = len(raw)
    at: i64 = 1
    kind: i64 = raw[0]
    count: i64 = kind - _ARRAY
    if kind == _ARRAY16:
        count = i64(read_i16_be(raw, 1)) & 0xFFFF
        at = 3
    elif kind == _ARRAY32:
        count = i64(read_i32_be(raw, 1)) & 0xFFFFFFFF
        at = 5
    elif not 0 <= count < _ARRAY_END - _ARRAY:
        raise msgspec.DecodeError("packed numbers are no array")
    if count > end - at:
        raise msgspec.DecodeError("packed numbers end too early")
    numbers = vec[i64](capacity=count + _ROOM)
    while at < end:
        kind = raw[at]
        at += 1
        number: i64
        if kind < _POSITIVE:
            number = kind
        elif kind == _UINT32:
            number = i64(read_i32_be(raw, at)) & 0xFFFFFFFF
            at += 4
        elif kind == _UINT64 or kind == _INT64:  # noqa: PLR1714 - a tuple would be made, and searched
            number = read_i64_be(raw, at)
            if number < 0 and kind == _UINT64:
                raise msgspec.DecodeError("a packed number has more than 63 bits")
            at += 8
        elif kind == _UINT8:
            number = raw[at]
            at += 1
        elif kind == _UINT16:
            number = i64(read_i16_be(raw, at)) & 0xFFFF
            at += 2
        elif kind >= _NEGATIVE:
            number = kind - 256
        elif kind == _INT8:
            number = raw[at]
            number -= 256
            at += 1
        elif kind == _INT16:
            number = i64(read_i16_be(raw, at))
            at += 2
        elif kind == _INT32:
            number = i64(read_i32_be(raw, at))
            at += 4
        else:
            raise msgspec.DecodeError("packed numbers have something else among them")
        numbers = append(numbers, number)
    if len(numbers) != count:
        raise msgspec.DecodeError("packed numbers are not as many as they say")
    return numbers
