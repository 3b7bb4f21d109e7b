"""The sender's ledger: one entry a decision id, the reason why an id is not sent twice.

An entry is *reserved* before the provider is asked and gets its final state afterwards. What a later reader may do
with an id follows from its entry alone (`next_step`); nothing here knows tables, Kafka or the time. Entries hold no
personal data: the id is a hash, and the user stands only in the decision.

Beside the entries stand an index row each (a user's subject and the id, so that a user's entries can be found and
erased) and the marks of erased users. No UTF-8 text begins with their first byte, so no decision id does.

Retention is wall-clock time, whatever clock decisions are made in: what an entry guards against is a record being
read again, and Kafka keeps records by the wall clock.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from schemas.topics import DAY_MS

ENTRY_VERSION: Final = 1
RETENTION_MS: Final = 7 * DAY_MS
MARK_RETENTION_MS: Final = 30 * DAY_MS
"""Of an erased user's mark: longer than Kafka may keep a decision, see `schemas.topics`."""
_INDEX: Final = b"\xffu"
_MARK: Final = b"\xffe"

_HEAD = struct.Struct(">Bq")


class State(enum.IntEnum):
    """Where a decision stands. Every state but `RESERVED` is final."""

    RESERVED = 0
    SENT = 1
    FAILED = 2
    UNKNOWN = 3


class LedgerEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is known of one decision id. New fields go to the end, with a default.

    Parameters
    ----------
    offset
        Offset in `decisions` of the record that this entry answers. Only that record's replay repeats the receipt:
        another record with the same id is a duplicate, and says nothing.
    at_ms
        Wall-clock time of the last change, from which retention counts.
    event_ms
        Event time of the final state: the receipt's timestamp.
    provider_id
        The provider's own name for the message.
    attempts
        How often a provider was asked.
    gone
        Tokens that a provider said are gone, each as token's id, provider and reason.
    """

    state: State
    offset: int
    at_ms: int
    event_ms: int = 0
    provider: str = ""
    reason: str = ""
    provider_id: str = ""
    attempts: int = 0
    gone: list[tuple[str, str, str]] = []


class BadEntry(ValueError):
    """The stored bytes are not an entry of a version that we read."""


class Step(enum.Enum):
    """What to do with a decision record, given its ledger entry."""

    SEND = "send"
    """Never seen: reserve it, then send it."""
    RESEND = "resend"
    """Reserved by a sender that died, transactional: it may have been sent, and is sent again."""
    GIVE_UP = "give_up"
    """Reserved by a sender that died, promotional: it may have been sent, so it must not be sent again."""
    REPEAT = "repeat"
    """Final, and this is the record it answers: the receipt may have been lost, so it is produced again."""
    SKIP = "skip"
    """Final, and this is another record with the same id."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LedgerEntry).decode


def encode_entry(entry: LedgerEntry) -> bytes:
    """A fixed header (version, `at_ms`), which a sweep reads without decoding the rest, and a MessagePack body."""
    return _HEAD.pack(ENTRY_VERSION, entry.at_ms) + _encode(entry)


def decode_entry(raw: bytes) -> LedgerEntry:
    """Raises `BadEntry`."""
    _peek_at_ms(raw)
    try:
        return _decode(memoryview(raw)[_HEAD.size :])
    except msgspec.MsgspecError as exc:
        raise BadEntry(f"not a ledger entry: {exc}") from exc


def is_entry(key: bytes) -> bool:
    """Whether a row's key is a decision's id, not that of an index row or of a mark."""
    return key[:1] != b"\xff"


def mark_key(subject: bytes) -> bytes:
    """The key of an erased user's mark: an entry whose offset says below which their decisions are not sent."""
    return _MARK + subject


def index_prefix(subject: bytes) -> bytes:
    """What the keys of a user's index rows begin with."""
    return _INDEX + subject


def index_row(subject: bytes, key: bytes, at_ms: int) -> tuple[bytes, bytes]:
    """The index row of the entry `key`. It is swept a day after the entry, so that none is left without."""
    return index_prefix(subject) + key, _HEAD.pack(ENTRY_VERSION, at_ms + DAY_MS)


def id_of_index(key: bytes, prefix: bytes) -> bytes:
    """The key of the entry that an index row stands for."""
    return key[len(prefix) :]


def _peek_at_ms(raw: bytes) -> int:
    try:
        version, at_ms = _HEAD.unpack_from(raw)
    except struct.error as exc:
        raise BadEntry(f"not a ledger entry: {exc}") from exc
    if version != ENTRY_VERSION:
        raise BadEntry(f"ledger entry version {version}; this build reads {ENTRY_VERSION}")
    return int(at_ms)


def next_step(entry: LedgerEntry | None, *, transactional: bool, offset: int) -> Step:
    """What a sender that holds no claim on the id does with the record at `offset`.

    Promotional decisions are sent at most once, transactional ones at least once: the two differ only in what
    becomes of an id that was reserved by a sender that did not live to record the answer.
    """
    if entry is None:
        return Step.SEND
    if entry.state is State.RESERVED:
        return Step.RESEND if transactional else Step.GIVE_UP
    return Step.REPEAT if entry.offset == offset else Step.SKIP


def settle(
    entry: LedgerEntry | None,
    final: LedgerEntry,
) -> LedgerEntry:
    """`final`, after checking that `entry` may become it: a final state never changes.

    Raises
    ------
    AssertionError
        On a forbidden change: the caller lost track of who owns the id.
    """
    assert final.state is not State.RESERVED, "settling needs a final state"
    assert entry is None or entry.state is State.RESERVED, f"{entry} is final already"
    return final


def sweep(rows: Iterable[tuple[bytes, bytes]], now_ms: int, retention_ms: int) -> Iterator[tuple[bytes, None]]:
    """Tombstones for the entries that are older than `retention_ms` at the wall-clock time `now_ms`.

    Forgetting is safe because the sender refuses a promotional record that is itself older than `retention_ms`.

    Examples
    --------
    >>> old, new = (encode_entry(LedgerEntry(State.SENT, offset=0, at_ms=at_ms)) for at_ms in (1_000, 9_000))
    >>> list(sweep([(b"a", old), (b"b", new)], now_ms=10_000, retention_ms=5_000))
    [(b'a', None)]
    """
    for key, raw in rows:
        keep_ms = max(retention_ms, MARK_RETENTION_MS) if key.startswith(_MARK) else retention_ms
        if now_ms - _peek_at_ms(raw) > keep_ms:
            yield key, None
