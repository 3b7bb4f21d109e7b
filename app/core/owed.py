"""Membership changes as a row owes them: packed, not as the JSON that is published.

They are the most frequent output by far: with twenty segments nearly every event has one. As outbox entries they were
half of a row, decoded and encoded again with each of the user's events until they were acknowledged. Packed they are a
third of that and one object, and the record is made of them again only when a restore finds them unacknowledged.

An entry is its head (length of the rest, mark, time, id) and its rest, MessagePack: the words of a `Wording` and the
trace context.
"""

from __future__ import annotations

import struct
from binascii import hexlify
from collections.abc import Iterator
from typing import Final, Literal

import msgspec
import xxhash
from librt.strings import BytesWriter, read_i64_be, write_i64_be
from mypy_extensions import i64

from app.core.profile import Profile
from app.core.row_parts import OutboxEntry, Output
from schemas.segments import MembershipChange, encode_membership
from schemas.topics import SEGMENTS

Cause = Literal["event", "clock", "policy", "backfill", "merge", "percentile"]
Change = Literal["enter", "leave"]

OWED_MOVES_BYTES_MAX: Final = 64 * 1024
"""What a row may owe in membership changes, beside its outbox."""

_HEAD: Final = struct.Struct(">Hqq16s")
_HEAD_BYTES: Final = 34
_MARK_AT: Final = 2
assert _HEAD.size == _HEAD_BYTES

# Looked up once: a compiled function asks the module's dict for whatever it has imported, each time.
_digest: Final = xxhash.xxh3_128_digest
_hex: Final = hexlify
_to_json: Final = msgspec.json.Encoder().encode
_to_msgpack: Final = msgspec.msgpack.Encoder().encode
_read_rest: Final = msgspec.msgpack.Decoder(tuple[str, Change, Cause, str, str, bytes | None]).decode


class Wording:
    """What many membership changes have in common, encoded once.

    Parameters
    ----------
    reason
        The clause or event that decided.
    version
        Of the policy.
    """

    __slots__ = ("_after", "_before", "_length", "_named", "_rest", "_words", "change", "segment")

    def __init__(self, segment: str, change: Change, cause: Cause, reason: str, version: str) -> None:
        self.segment = segment
        self.change: Change = change
        self._words = (segment, change, cause, reason, version)
        self._rest: bytes = _to_msgpack((*self._words, None))
        self._length = _length_of(self._rest)
        self._named = f"\x1f{segment}\x1f{change}\x1f".encode()
        like = MembershipChange(
            id="", user="", segment=segment, change=change, at_ms=0, cause=cause, reason=reason, policy_version=version
        )
        # No name can look like the time: its quotation marks would be escaped.
        before, after = encode_membership(like).removeprefix(b'{"id":"","user":""').split(b',"atMs":0,', 1)
        self._before, self._after = before + b',"atMs":', b"," + after

    def identity(self, key: bytes, origin: int) -> bytes:
        """The change's id, 128 bits, the same however often it is computed.

        Parameters
        ----------
        key
            The user, as UTF-8.
        origin
            The source offset of the event that changed it, or the due time (ms).
        """
        return _digest(b"%b%b%d" % (key, self._named, origin))

    def value(self, identity: bytes, user: str, at: bytes) -> bytes:
        """The record's JSON value: `encode_membership` of the change. `at` is its time (ms) in digits."""
        # Compiled, formatting bytes is one allocation, and this is the most frequent record of all.
        return b'{"id":"%b","user":%b%b%b%b' % (_hex(identity), _to_json(user), self._before, at, self._after)

    def owe(self, owed: BytesWriter, mark: int, at_ms: int, identity: bytes, trace: bytes | None) -> None:
        """Add the change to what a row owes."""
        if trace is None:
            owed.write(self._length)
            rest = self._rest
        else:
            rest = _to_msgpack((*self._words, trace))
            owed.write(_length_of(rest))
        write_i64_be(owed, mark)
        write_i64_be(owed, at_ms)
        owed.write(identity)
        owed.write(rest)


def _length_of(rest: bytes) -> bytes:
    return len(rest).to_bytes(2, "big")


def trim(profile: Profile, acked_offset: int) -> None:
    """Forget what has been acknowledged: everything with a mark below `acked_offset`, as marks never fall."""
    if profile.owes_records():
        profile.outbox = [entry for entry in profile.outbox if entry.mark >= acked_offset]
    owed = profile.owed
    at: i64 = 0
    end: i64 = len(owed)
    while at < end:
        if read_i64_be(owed, at + _MARK_AT) >= acked_offset:
            break
        at += _HEAD_BYTES + (i64(owed[at]) << 8) + i64(owed[at + 1])
    if at:
        profile.owed = owed[at:]


def outputs(profile: Profile, key: bytes) -> list[OutboxEntry]:
    """Everything that the row owes. `key` is the user whose membership changes they are."""
    return [*profile.outbox, *_unpacked(profile.owed, key)]


def is_owing(profile: Profile) -> bool:
    """Whether the row owes anything."""
    return bool(profile.owed) or profile.owes_records()


def settle(profile: Profile) -> None:
    """Forget everything that the row owes, where nothing is published or it has been."""
    profile.outbox, profile.owed = [], b""


def _unpacked(owed: bytes, key: bytes) -> Iterator[OutboxEntry]:
    user = key.decode() if owed else ""
    at = 0
    while at < len(owed):
        length, mark, at_ms, identity = _HEAD.unpack_from(owed, at)
        at += _HEAD_BYTES + length
        segment, change, cause, reason, version, trace = _read_rest(owed[at - length : at])
        wording = Wording(segment, change, cause, reason, version)
        headers = () if trace is None else [("traceparent", trace)]
        yield OutboxEntry(mark, Output(SEGMENTS, key, wording.value(identity, user, b"%d" % at_ms), headers))
