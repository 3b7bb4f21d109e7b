"""What goes wrong on the way: messages that come late, twice, or broken, in stated shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import orjson

Broken = tuple[bytes, bytes | None]
"""Key and value of a record that must be refused."""

_YEAR_MS: Final = 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of all messages, each in [0, 1].

    Raises
    ------
    ValueError
        When a share is out of range.
    """

    late: float = 0.01
    duplicate: float = 0.01
    malformed: float = 0.002

    def __post_init__(self) -> None:
        for name in ("late", "duplicate", "malformed"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}={value}: a share is between 0 and 1")


def broken_record(rng: Random, user: str, at_ms: int) -> Broken:
    """A record of the `events` topic that no decoder may accept, of a random kind, keyed by `user`."""
    kind = rng.choice(_KINDS)
    return user.encode(), kind(user, at_ms)


def _message(user: str, at_ms: int, **changes: object) -> bytes:
    message = {"type": "track", "event": "Product Viewed", "userId": user, "timestamp": at_ms} | changes
    return orjson.dumps({name: value for name, value in message.items() if value is not None})


def _cut_off(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms)[:-9]


def _not_utf8(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms).replace(b"Viewed", b"\xff\xfe")


def _no_user(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms, userId=None)


def _other_user(user: str, at_ms: int) -> bytes:
    return _message(f"{user}-other", at_ms)


def _unknown_type(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms, type="screech")


def _no_name(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms, event=None)


def _wrong_field(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms, properties="none")


def _from_the_future(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms + _YEAR_MS)


def _from_long_ago(user: str, at_ms: int) -> bytes:
    return _message(user, at_ms - 3 * _YEAR_MS)


def _empty(_user: str, _at_ms: int) -> None:
    return None


_KINDS: Final[tuple[Callable[[str, int], bytes | None], ...]] = (
    _cut_off,
    _not_utf8,
    _no_user,
    _other_user,
    _unknown_type,
    _no_name,
    _wrong_field,
    _from_the_future,
    _from_long_ago,
    _empty,
)
