"""Erasing a user: the signed request on `events`, and the receipts on `erasures`.

Users stand here only as subjects: keyed hashes (HMAC-SHA-256) that nobody can compute, or test a guess with, who does
not hold the secret.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from schemas.decoding import json_decoder
from schemas.events import ABSORB, ERASE, MERGE, Event

SUBJECT_BYTES: Final = 16
PROFILE: Final = "profile"
LEDGER: Final = "ledger"
PARTS: Final = (PROFILE, LEDGER)
"""Who must report: the worker that owns the user's row, and the sender that owns the user's decisions."""


class Subjects:
    """Keyed hashes of users, and signatures of what only the engine may ask of itself: to erase, and to merge rows.

    Parameters
    ----------
    secret
        Must stay the same for as long as an erased user is to be recognised (`NUDGE_PRIVACY_SECRET`).
    """

    def __init__(self, secret: bytes) -> None:
        assert secret, "an empty secret hides nothing"
        self._subject_key = hmac.digest(secret, b"nudge subject v1", hashlib.sha256)
        self._request_key = hmac.digest(secret, b"nudge erase request v1", hashlib.sha256)
        self._merge_key = hmac.digest(secret, b"nudge merge v1", hashlib.sha256)

    def of(self, user: bytes) -> bytes:
        """The user's subject, `SUBJECT_BYTES` bytes."""
        return hmac.digest(self._subject_key, user, hashlib.sha256)[:SUBJECT_BYTES]

    def request(self, user: str, request_id: str, *, aliases: bool = False) -> Event:
        """A signed request to erase `user`.

        Parameters
        ----------
        aliases
            Erase what stands under the ids that the row names as the user's earlier ones, too.
        """
        signature = self._sign(user, request_id, aliases)
        properties = {"aliases": aliases, "signature": signature}
        return Event(type=ERASE, user_id=user, message_id=request_id, properties=properties)

    def requested(self, event: Event) -> bool:
        """Whether this is an erase request, signed with our key."""
        signature = event.properties.get("signature")
        if event.type != ERASE or not event.message_id or not isinstance(signature, str):
            return False
        user = event.user_id or event.anonymous_id or ""
        wanted = self._sign(user, event.message_id, event.properties.get("aliases") is True)
        return hmac.compare_digest(signature.encode(), wanted.encode())

    def merge_request(self, alias: str, into: str) -> Event:
        """A signed request to merge the row of `alias` into that of `into`."""
        properties = {"into": into, "signature": self._sign_merge(MERGE, alias, into)}
        return Event(type=MERGE, user_id=alias, message_id=f"merge:{self._sign_merge('id', alias, into)[:32]}",
                     properties=properties)  # fmt: skip

    def merging(self, event: Event) -> str | None:
        """Into whose row this merge request says; None when it is none, or not signed with our key."""
        into = event.properties.get("into")
        user = event.user_id or ""
        if event.type != MERGE or not isinstance(into, str) or not self._signed(event, MERGE, user, into):
            return None
        return into

    def absorb_request(self, into: str, alias: str, row: str) -> Event:
        """A signed message that brings the row of `alias` (base64 of its encoding) to that of `into`."""
        properties = {"alias": alias, "row": row, "signature": self._sign_merge(ABSORB, into, alias, row)}
        return Event(type=ABSORB, user_id=into, message_id=f"absorb:{self._sign_merge('id', into, alias, row)[:32]}",
                     properties=properties)  # fmt: skip

    def absorbing(self, event: Event) -> tuple[str, str] | None:
        """Whose row this brings, and the row (base64); None when it brings none, or is not signed with our key."""
        alias, row = event.properties.get("alias"), event.properties.get("row")
        if event.type != ABSORB or not isinstance(alias, str) or not isinstance(row, str):
            return None
        return (alias, row) if self._signed(event, ABSORB, event.user_id or "", alias, row) else None

    def _signed(self, event: Event, *parts: str) -> bool:
        signature = event.properties.get("signature")
        wanted = self._sign_merge(*parts)
        return isinstance(signature, str) and hmac.compare_digest(signature.encode(), wanted.encode())

    def _sign_merge(self, *parts: str) -> str:
        text = "\x1f".join(f"{len(part)}:{part}" for part in parts).encode()
        return hmac.new(self._merge_key, text, hashlib.sha256).hexdigest()

    def _sign(self, user: str, request_id: str, aliases: bool) -> str:
        text = f"{request_id}\x1f{int(aliases)}\x1f{user}".encode()
        return hmac.new(self._request_key, text, hashlib.sha256).hexdigest()


class ErasureReceipt(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """What was erased of a user, where and when; no field names the user.

    Parameters
    ----------
    part
        One of `PARTS`.
    partition, offset
        For the profile: of the request in `events`. Whatever the user did before it is never folded again.
        For the ledger: of the record in `decisions` that passed the request on; no decision before it is sent.
    erased
        What there was, by kind: rows, timers, pending labels, ledger entries, …
    """

    subject: str
    request: str
    part: str
    at_ms: int
    partition: int
    offset: int
    erased: dict[str, int]

    @property
    def key(self) -> str:
        """Of its record on the compacted topic: the newest receipt of a subject and part stays."""
        return f"{self.subject}/{self.part}"


_encoder = msgspec.json.Encoder()
_decode = json_decoder(ErasureReceipt)


def encode_receipt(receipt: ErasureReceipt) -> bytes:
    """The JSON value of a record of the `erasures` topic."""
    return _encoder.encode(receipt)


def decode_receipt(raw: bytes) -> ErasureReceipt:
    """Raises `msgspec.MsgspecError` when the value is not a receipt."""
    return _decode(raw)
