"""Stable numbers for names and for dice: the same in every process, on every machine, for ever."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from hashlib import sha1
from typing import Final

import xxhash

BUCKETS: Final = 10_000
_digest: Final = xxhash.xxh3_64_digest  # looked up once, see app.core.owed


def stable_id(text: str) -> int:
    """A 32-bit id for a name that a policy defines (feature, segment, campaign) or an event's name."""
    return xxhash.xxh32_intdigest(text.encode())


def set_default_id(owner: object, attribute: str, text: str) -> None:
    """Of a frozen `owner`: an id that was not given is `text`'s, so that a plan built by hand needs none."""
    if not getattr(owner, attribute):
        object.__setattr__(owner, attribute, stable_id(text))


def message_hash(message_id: str) -> int:
    """A 63-bit hash of a message id for de-duplication (MessagePack stores 63 bits in 9 bytes)."""
    return xxhash.xxh3_64_intdigest(message_id.encode()) >> 1


WORD_BYTES: Final = 6
"""Of a message id's hash. A row remembers 32, so a new message is taken for a repeated one with a probability of
32 / 2**48, about 1e-13: at a thousand events a second, once in three centuries."""
RECENT_MAX: Final = 32
"""Message ids that a row remembers: the de-duplication window."""
RECENT_BYTES: Final = WORD_BYTES * RECENT_MAX


def message_word(message_id: str) -> bytes:
    """A hash of a message id for de-duplication, as `WORD_BYTES` bytes."""
    word: bytes = _digest(message_id.encode())
    return word[:WORD_BYTES]


_DECISIONS: Final = bytes.fromhex("6f1f2b1c6a0e5b579d0e0c7d4f0f2a11")
"""The namespace of their ids (RFC 9562, version 5)."""


def decision_id(user: str, campaign: str, trigger_key: str, origin: int) -> str:
    """The id of a decision, the same however often it is computed.

    Parameters
    ----------
    origin
        The source offset of the event that triggered it, or the due time (ms) of the timer.
    """
    name = f"{user}\x1f{campaign}\x1f{trigger_key}\x1f{origin}".encode()
    digest = bytearray(sha1(_DECISIONS + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return _with_hyphens(digest.hex())  # as str(uuid.uuid5(...)), which takes three times as long


_FULL_CHARS: Final = 36
_SHORT_CHARS: Final = 22


def short_id(full: str) -> str:
    """A decision's id as rows hold it: base64 of the UUID's 16 bytes. Any other text stays as it is."""
    if len(full) != _FULL_CHARS:
        return full
    try:
        digest = bytes.fromhex(full.replace("-", ""))
    except ValueError:
        return full
    if _with_hyphens(digest.hex()) != full:
        return full
    return b2a_base64(digest)[:_SHORT_CHARS].decode()


def full_id(short: str) -> str:
    """A decision's id as messages hold it, from what `short_id` made of it.

    Examples
    --------
    >>> full_id(short_id("5590cb8a-ea61-51d3-9dce-3fbef8e80ea8"))
    '5590cb8a-ea61-51d3-9dce-3fbef8e80ea8'
    """
    if len(short) != _SHORT_CHARS:
        return short
    return _with_hyphens(a2b_base64(short + "==").hex())


def _with_hyphens(text: str) -> str:
    """32 hexadecimal digits as a UUID is written; fewer or more do not make one."""
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def bucket(user: str, salt: str) -> int:
    """A user's bucket in [0, BUCKETS) for holdouts and variants: uniform over users, independent between salts."""
    return xxhash.xxh3_64_intdigest(f"{salt}\x1f{user}".encode()) % BUCKETS
