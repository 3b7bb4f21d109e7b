"""Rows of earlier versions, as rows of the present one: what was encoded in another way, by its place in the row.

| version | what it held otherwise |
|---|---|
| 1 | 8 bytes of a message's hash in place of 6; logged features as maps from their names |
| 2 | interests as [score, time]; ids of decisions in full; what is nearly always 0 or 1 as floats |
| 3 | all fields in one array, none encoded by itself; 2**62 for a time that never comes |
| 4 | one MessagePack array, with newest times, windows and segments as maps |
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.core.browsing import Browsing
from app.core.ids import WORD_BYTES, short_id
from app.core.interest import level_of
from app.core.logged import pack, rounded
from app.core.panes import Panes
from app.core.row_parts import Propensity, Timer

OLDEST_VERSION: Final = 1
_NEWEST: Final = 4
NEVER_MS: Final = 2**61
"""From here on a time never comes, in rows of any version."""

Body = tuple[
    int, int, int, int, bytes, str, str, str, int, int, int, int, int, int, str, bytes,
    dict[int, int], dict[int, Panes], dict[int, int], dict[str, int], list[int],
    list[Timer], Propensity | None, Browsing | None, bool, bytes,
]  # fmt: skip
"""`COMMON_FIELDS` of a row of version 4 (0 is a time that never comes), whether its outbox holds anything, and the
rare fields.
"""
_decode = msgspec.msgpack.Decoder(Body).decode

_RECENT: Final = 4
_AFFINITY: Final = 20
_PENDING: Final = 27
_TIMERS: Final = 28
_WEARINESS: Final = 40
_PROPENSITY: Final = 42
_REWARDS: Final = 49

_PENDING_ID: Final = 0
_PENDING_CHANCE: Final = 7
_PENDING_FEATURES: Final = 8

_TIMER_KIND: Final = 1
_TIMER_KEY: Final = 3
_TIMER_CHANCE: Final = 7
_TIMERS_OF_DECISIONS: Final = (3, 9)

_REWARD_ID: Final = 0
_REWARD_CHANCE: Final = 5
_REWARD_GAIN: Final = 9

_WATCHES: Final = 1
_WATCH_FEATURES: Final = 4
_OUTBOX: Final = 29
_DUE: Final = 31
_COMMON: Final = (0, 1, 2, 3, 4, 7, 8, 46, 16, 17, 18, 31, 33, 35, 44, 48, 13, 14, 15, 20, 36, 28, 42, 47)
_RARE: Final = (5, 6, 9, 10, 11, 12, 19, *range(21, 28), 29, 30, 32, 34, *range(37, 42), 43, 45, 49, 50, 51)
"""Where the fields of version 4 stood, in its order: those that are common, and those that are rare."""
_DUE_4: Final = 11
_NEW: Final[tuple[Any, ...]] = (
    -1, 0, 0, 0, b"", {}, 0, "", "", -1, 0, [], [], {}, {}, {}, 0, 0, 0, {}, {}, 0, 0, 0, 0, 0,
    [], [], [], [], {}, NEVER_MS, {}, 0, 1, 0, [], {}, {}, {}, 0, 0, None, [], "", [], "", None, b"", [], b"", None,
)  # fmt: skip
"""A new row of version 3: builds before the last of that version wrote fewer fields."""
"""Positions in the arrays of `Profile`, `Pending`, `Timer`, `PendingReward`, `Propensity` and `Watch`, and kinds of
timers, as they were then; they never change."""


_NOTHING_RARE: Final = msgspec.msgpack.encode([_NEW[at] for at in _RARE])


def read_older(body: bytes, version: int) -> Body:
    """The body of a row of an earlier version. Raises `msgspec.DecodeError` for other bytes."""
    if version == _NEWEST:
        return _newest(_decode(body))
    row: Any = msgspec.msgpack.decode(body)
    try:
        if version == 1:
            _from_1(row)
        if version <= 2:
            _from_2(row)
        row = _from_3(row)
    except (TypeError, IndexError, AttributeError, KeyError, ValueError, OverflowError) as exc:
        raise msgspec.DecodeError(f"not a row of version {version}") from exc
    return _newest(_decode(msgspec.msgpack.encode(row)))


def _newest(body: Body) -> Body:
    due_ms = body[_DUE_4] or NEVER_MS
    return *body[:_DUE_4], due_ms, *body[_DUE_4 + 1 :]  # type: ignore[return-value]


def _from_1(row: list[Any]) -> None:
    recent = row[_RECENT]
    row[_RECENT] = b"".join(recent[at : at + WORD_BYTES] for at in range(0, len(recent), 8))
    for pending in _field(row, _PENDING) or ():
        pending[_PENDING_FEATURES] = pack(rounded(pending[_PENDING_FEATURES]))
    propensity = _field(row, _PROPENSITY)
    for watch in (_field(propensity, _WATCHES) or {}).values() if propensity else ():
        watch[_WATCH_FEATURES] = pack(rounded(watch[_WATCH_FEATURES]))


def _from_2(row: list[Any]) -> None:
    if affinity := _field(row, _AFFINITY):
        row[_AFFINITY] = {name: level_of(score, at_ms) for name, (score, at_ms) in affinity.items() if score > 0}
    for pending in _field(row, _PENDING) or ():
        pending[_PENDING_ID] = short_id(pending[_PENDING_ID])
        _slim(pending, _PENDING_CHANCE)
    for timer in _field(row, _TIMERS) or ():
        if timer[_TIMER_KIND] in _TIMERS_OF_DECISIONS:
            timer[_TIMER_KEY] = short_id(timer[_TIMER_KEY])
        _slim(timer, _TIMER_CHANCE)
    for reward in _field(row, _REWARDS) or ():
        reward[_REWARD_ID] = short_id(reward[_REWARD_ID])
        _slim(reward, _REWARD_CHANCE)
        _slim(reward, _REWARD_GAIN)
    _slim(row, _WEARINESS)


def _from_3(row: list[Any]) -> list[Any]:
    row = [*row, *_NEW[len(row) :]]
    row[_DUE] = 0 if row[_DUE] >= NEVER_MS else row[_DUE]
    rare = msgspec.msgpack.encode([row[at] for at in _RARE])
    return [*(row[at] for at in _COMMON), bool(row[_OUTBOX]), b"" if rare == _NOTHING_RARE else rare]


def _field(fields: list[Any], at: int) -> Any:
    """A field; None where the row is older than it."""
    return fields[at] if len(fields) > at else None


def _slim(fields: list[Any], at: int) -> None:
    if _field(fields, at) in (0.0, 1.0):
        fields[at] = int(fields[at])
