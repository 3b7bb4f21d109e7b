"""Integers of 64 bits, packed: what a row holds many of.

In memory they are a `vec`, one piece of memory with no object a number; encoded they are a MessagePack array, which
msgspec reads and writes when the core is not compiled. Compiled, a number costs a few cycles either way.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from librt.strings import BytesWriter, read_i16_be, read_i32_be, read_i64_be, write_i16_be, write_i32_be, write_i64_be
from librt.vecs import vec
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

_ZEROS_COUNT: Final = 1024
_ZEROS: Final = vec[i64]([0] * _ZEROS_COUNT)
"""A part of it is copied in one go."""

_decode = msgspec.msgpack.Decoder(list[int]).decode
_encode = msgspec.msgpack.Encoder().encode


def _zeros(count: i64) -> vec[i64]:
    """So many numbers, to be filled in."""
    return _ZEROS[:count] if count <= _ZEROS_COUNT else vec[i64]([0] * count)


def write(numbers: vec[i64], end: i64, tail: vec[i64], begin: i64, writer: BytesWriter) -> None:
    """Encode the numbers before `end` and those of the tail from `begin` on as one: the same bytes as msgspec gives for
    a list of all of them.
    """
    if not _COMPILED:
        writer.write(_encode([*numbers[:end], *tail[begin:]]))
        return
    _write_count(end + len(tail) - begin, writer)
    _write(numbers, 0, end, writer)
    _write(tail, begin, len(tail), writer)


def write_ids(numbers: vec[i64], begin: i64, end: i64, writer: BytesWriter) -> None:
    """Every other number from `begin` to before `end`, without a sign, four bytes each."""
    if not _COMPILED:
        ids = list(numbers[begin:end])[::2]
        writer.write(struct.pack(f">{len(ids)}I", *ids))
        return
    at: i64 = begin
    while at < end:
        write_i32_be(writer, as_i32(numbers[at]))
        at += 2


def read(raw: bytes, begin: i64, end: i64) -> vec[i64]:
    """Decode a part of `raw`. Raises `msgspec.DecodeError`, also for a number of more than 63 bits and a sign."""
    try:
        return _read(raw, begin, end) if _COMPILED else vec[i64](_decode(raw[begin:end]))
    except (IndexError, OverflowError) as exc:
        raise msgspec.DecodeError("no packed numbers") from exc


def as_i32(number: i64) -> i32:
    """The same 32 bits with a sign: interpreted, an `i32` takes nothing else."""
    return i32(number - (1 << 32) if number >= 1 << 31 else number)


def as_i16(number: i64) -> i16:
    """The same 16 bits with a sign."""
    return i16(number - (1 << 16) if number >= 1 << 15 else number)


def _write_count(count: i64, writer: BytesWriter) -> None:
    if count < _ARRAY_END - _ARRAY:
        writer.append(u8(_ARRAY + count))
    elif count < 1 << 16:
        writer.append(u8(_ARRAY16))
        write_i16_be(writer, as_i16(count))
    else:
        writer.append(u8(_ARRAY32))
        write_i32_be(writer, as_i32(count))


def _write(numbers: vec[i64], at: i64, end: i64, writer: BytesWriter) -> None:
    """With each byte named one: of another type `append` would be looked up and called as in Python."""
    while at < end:
        number = numbers[at]
        at += 1
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


def _read(raw: bytes, begin: i64, end: i64) -> vec[i64]:
    count, at = _read_count(raw, begin)
    if count > end - at:
        raise msgspec.DecodeError("packed numbers end too early")
    numbers = _zeros(count)
    place: i64 = 0
    while place < count:
        kind: i64 = raw[at]
        at += 1
        number: i64
        if kind < _POSITIVE:
            number = kind
        elif kind == _UINT32:
            number = i64(read_i32_be(raw, at)) & 0xFFFFFFFF
            at += 4
        elif kind == _UINT64:
            number = read_i64_be(raw, at)
            if number < 0:
                raise msgspec.DecodeError("a packed number has more than 63 bits")
            at += 8
        elif kind == _UINT8:
            number = raw[at]
            at += 1
        elif kind == _UINT16:
            number = i64(read_i16_be(raw, at)) & 0xFFFF
            at += 2
        else:
            number, at = _read_negative(raw, at, kind)
        numbers[place] = number
        place += 1
    if at != end:
        raise msgspec.DecodeError("packed numbers are not as many as they say")
    return numbers


def _read_count(raw: bytes, at: i64) -> tuple[i64, i64]:
    """How many numbers there are, and where they begin."""
    kind: i64 = raw[at]
    at += 1
    if _ARRAY <= kind < _ARRAY_END:
        return kind - _ARRAY, at
    if kind == _ARRAY16:
        return i64(read_i16_be(raw, at)) & 0xFFFF, at + 2
    if kind == _ARRAY32:
        return i64(read_i32_be(raw, at)) & 0xFFFFFFFF, at + 4
    raise msgspec.DecodeError("packed numbers are no array")


def _read_negative(raw: bytes, at: i64, kind: i64) -> tuple[i64, i64]:
    """A number, and where it ends. Whoever writes positive numbers as signed ones is understood."""
    number: i64 = kind - 256
    if kind >= _NEGATIVE:
        return number, at
    if kind == _INT64:
        return read_i64_be(raw, at), at + 8
    if kind == _INT32:
        return i64(read_i32_be(raw, at)), at + 4
    if kind == _INT16:
        return i64(read_i16_be(raw, at)), at + 2
    if kind == _INT8:
        number = raw[at]
        return number - 256 if number >= 1 << 7 else number, at + 1
    raise msgspec.DecodeError("packed numbers have something else among them")
