"""Erasing a user: the signed request on `events`, and the receipts on `erasures`.

Users stand here only as subjects: keyed hashes (HMAC-SHA-256) that nobody can compute, or test a guess with, who does
not hold the secret.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from schemas.events import ERASE, Event

SUBJECT_BYTES: Final = 16
PROFILE: Final = "profile"
LEDGER: Final = "ledger"
PARTS: Final = (PROFILE, LEDGER)
"""Who must report: the worker that owns the user's row, and the sender that owns the user's decisions."""


class Subjects:
    """Keyed hashes of users, and signatures of erase requests.

    Parameters
    ----------
    secret
        Must stay the same for as long as an erased user is to be recognised (`NUDGE_PRIVACY_SECRET`).
    """

    def __init__(self, secret: bytes) -> None:
        assert secret, "an empty secret hides nothing"
        self._subject_key = hmac.digest(secret, b"nudge subject v1", hashlib.sha256)
        self._request_key = hmac.digest(secret, b"nudge erase request v1", hashlib.sha256)

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
_decoder = msgspec.json.Decoder(ErasureReceipt)


def encode_receipt(receipt: ErasureReceipt) -> bytes:
    """The JSON value of a record of the `erasures` topic."""
    return _encoder.encode(receipt)


def decode_receipt(raw: bytes) -> ErasureReceipt:
    """Raises `msgspec.MsgspecError` when the value is not a receipt."""
    return _decoder.decode(raw)
