"""Policy versions: the text of each that was applied, signed, on a compacted topic that every worker reads whole.

A version is written twice: under `NAME@SERIAL`, which is its history, and then under `NAME`, which says what is in
force. So compaction keeps all of the history and one head.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgspec

from schemas.decoding import json_decoder


class PolicyVersion(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """One applied version of a policy.

    Parameters
    ----------
    policy
        The policy's name.
    serial
        1, 2, 3 …: the number by which people speak of it. A rollback is a version of its own.
    version
        The plan's: what the file declares and the beginning of its content's SHA-256.
    text
        The policy file.
    at_ms
        Wall time.
    features
        The windowed totals that it reads, so that a worker knows which ones a later version asks for first.
    segments
        Their names, so that users can leave one that a later version no longer has.
    restores
        The serial that a rollback brought back, else 0.
    """

    policy: str
    serial: int
    version: str
    text: str
    author: str
    at_ms: int
    features: list[str] = []
    segments: list[str] = []
    restores: int = 0
    signature: str = ""


class BadPolicyVersion(ValueError):
    """Not a policy version, or not signed with our key: it must not be used."""


_encoder = msgspec.json.Encoder()
_decode = json_decoder(PolicyVersion)


def head_key(policy: str) -> bytes:
    """The key under which the version in force stands."""
    return policy.encode()


def history_key(policy: str, serial: int) -> bytes:
    """The key under which a version stands for ever. No policy's name has an ``@``."""
    return f"{policy}@{serial}".encode()


def _sign(version: PolicyVersion, secret: bytes) -> str:
    unsigned: Any = msgspec.structs.replace(version, signature="")
    return hmac.new(secret, _encoder.encode(unsigned), hashlib.sha256).hexdigest()


def encode_policy_version(version: PolicyVersion, secret: bytes) -> bytes:
    """The signed JSON value of a record of the `policy` topic."""
    return _encoder.encode(msgspec.structs.replace(version, signature=_sign(version, secret)))


def decode_policy_version(raw: bytes, secret: bytes) -> PolicyVersion:
    """Raises `BadPolicyVersion`."""
    try:
        version = _decode(raw)
    except msgspec.MsgspecError as exc:
        raise BadPolicyVersion(f"not a policy version: {exc}") from None
    if not hmac.compare_digest(version.signature.encode(), _sign(version, secret).encode()):
        raise BadPolicyVersion(f"policy {version.policy!r} version {version.serial}: wrong signature")
    return version
