"""Model snapshots: the newest state of each model, signed, keyed by model on a compacted topic."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgspec

from schemas.decoding import json_decoder


class SignedSnapshot(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What of a snapshot is signed: no field is added here, or builds could not read each other's.

    A model's plain numbers and where in `outcomes` they stand.

    `next_offset` is the first offset of the `outcomes` partition that the state has NOT learned: a learner that
    starts from the snapshot skips everything before it, so no example counts twice.
    """

    model: str
    version: int
    partition: int
    next_offset: int
    created_ms: int
    state: bytes
    metrics: dict[str, float]
    signature: str = ""


class ModelSnapshot(SignedSnapshot, kw_only=True, frozen=True):
    """A model's newest state.

    `last` says which record of `outcomes` stands before `next_offset`, as in another log that offset says nothing.
    """

    last: str = ""


def supersedes(new: ModelSnapshot, old: ModelSnapshot | None) -> bool:
    """Whether the later record `new` replaces `old`, both of one model.

    The last record of a key is not always the one that knows most: a learner that lost its partition without knowing
    may write when its successor has gone on. Such a record is behind in both: where it stands, and what it learned. One
    that stands earlier and knows more has learned from a topic that was made anew.
    """
    if old is None or new.partition != old.partition:
        return True
    return new.next_offset >= old.next_offset or new.version > old.version


class BadSignature(ValueError):
    """The snapshot was not signed with our key: it must not be loaded."""


_encoder = msgspec.json.Encoder()
_decode = json_decoder(ModelSnapshot)


def _sign(snapshot: ModelSnapshot, secret: bytes) -> str:
    fields = {name: getattr(snapshot, name) for name in SignedSnapshot.__struct_fields__}
    unsigned: Any = SignedSnapshot(**(fields | {"signature": ""}))
    return hmac.new(secret, _encoder.encode(unsigned), hashlib.sha256).hexdigest()


def encode_snapshot(snapshot: ModelSnapshot, secret: bytes) -> bytes:
    """The signed JSON value of a record of the `models` topic."""
    return _encoder.encode(msgspec.structs.replace(snapshot, signature=_sign(snapshot, secret)))


def decode_snapshot(raw: bytes, secret: bytes) -> ModelSnapshot:
    """Raises `BadSignature`, or `msgspec.MsgspecError` when the value is not a snapshot."""
    snapshot = _decode(raw)
    if not hmac.compare_digest(snapshot.signature.encode(), _sign(snapshot, secret).encode()):
        raise BadSignature(f"snapshot of model {snapshot.model!r} version {snapshot.version}: wrong signature")
    return snapshot
