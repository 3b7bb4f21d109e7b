"""The header of a stored row: what a restore needs of very many rows, without decoding any.

version  flags  due_ms  number of segments  their ids
1       1       8             1            4 each
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from app.core.panes import NEVER_MS

HEAD: Final = struct.Struct(">BBqB")
HEAD_BYTES: Final = 11
"""Without the ids. A number and not `HEAD.size`, as the next, since the compiled core has these as constants."""
COUNT_AT: Final = 10
HEAD_IDS_MAX: Final = 255
FLAG_OUTBOX: Final = 1
UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises over bytes that are no such thing: text that is no UTF-8, and nesting without end, too."""


class BadRow(ValueError):
    """The stored bytes are not a row of a version that we read."""


class RowHead(msgspec.Struct, frozen=True, gc=False):
    """What a restore needs of a row."""

    due_ms: int
    has_outbox: bool
    segments: tuple[int, ...]


def peek(raw: bytes) -> RowHead:
    """Read a row's header without decoding the row. Raises `BadRow`."""
    heads = read_heads([(b"", raw)])
    due_ms = heads.due[0][0] if heads.due else NEVER_MS
    return RowHead(due_ms, bool(heads.owing), struct.unpack(f">{len(heads.packed) // 4}I", heads.packed))


class RowHeads(msgspec.Struct, frozen=True, gc=False):
    """What a restore needs of very many rows.

    `due` are the rows that the clock can change, with their keys; `owing` the keys of those with an outbox.
    """

    due: list[tuple[int, bytes]]
    owing: list[bytes]
    packed: bytes
    """The segments of all of them, one after the other: four bytes each."""

    def members(self) -> Counter[int]:
        """Rows by segment."""
        return Counter(struct.unpack(f">{len(self.packed) // 4}I", self.packed))


def read_heads(rows: Sequence[tuple[bytes, bytes]]) -> RowHeads:
    """The headers of rows with their keys. Raises `BadRow`."""
    due: list[tuple[int, bytes]] = []
    owing: list[bytes] = []
    packed: list[bytes] = []
    head, begin = HEAD.unpack_from, HEAD_BYTES
    try:
        for key, raw in rows:
            _version, flags, due_ms, count = head(raw)
            if due_ms < NEVER_MS:
                due.append((due_ms, key))
            if flags & FLAG_OUTBOX:
                owing.append(key)
            if count:
                segments = raw[begin : begin + 4 * count]
                if len(segments) < 4 * count:
                    raise BadRow(f"not a profile row: it ends within its {count} segments")
                packed.append(segments)
    except struct.error as exc:
        raise BadRow(f"not a profile row: {exc}") from exc
    return RowHeads(due, owing, b"".join(packed))
