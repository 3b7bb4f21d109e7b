"""Rows of version 1: 8 bytes of a message's hash in place of 6, and logged features as maps from their names."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.core.ids import WORD_BYTES
from app.core.logged import pack, rounded

_RECENT: Final = 4
_PENDING: Final = 27
_PENDING_FEATURES: Final = 8
_PROPENSITY: Final = 42
_WATCHES: Final = 1
_WATCH_FEATURES: Final = 4
"""Positions in the arrays of `Profile`, `Pending`, `Propensity` and `Watch`; they never change."""


def upgraded(body: memoryview) -> bytes:
    """The body of a row of version 1 as one of version 2. Raises `msgspec.DecodeError` for other bytes."""
    row: Any = msgspec.msgpack.decode(body)
    try:
        recent = row[_RECENT]
        row[_RECENT] = b"".join(recent[at : at + WORD_BYTES] for at in range(0, len(recent), 8))
        for pending in row[_PENDING] if len(row) > _PENDING else ():
            pending[_PENDING_FEATURES] = pack(rounded(pending[_PENDING_FEATURES]))
        propensity = row[_PROPENSITY] if len(row) > _PROPENSITY else None
        for watch in propensity[_WATCHES].values() if propensity and len(propensity) > _WATCHES else ():
            watch[_WATCH_FEATURES] = pack(rounded(watch[_WATCH_FEATURES]))
    except (TypeError, IndexError, AttributeError, KeyError) as exc:
        raise msgspec.DecodeError("not a row of version 1") from exc
    return msgspec.msgpack.encode(row)
