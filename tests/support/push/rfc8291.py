"""A browser's side of Web Push encryption, from RFC 8291 and RFC 8188 and nothing else: independent of what sends.

The names are the RFC's: ``ikm``, ``cek``, ``ua_public``, ``as_public``.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.push.keys import base64url, point


@dataclass(frozen=True)
class Browser:
    """A subscription as a browser makes it."""

    endpoint: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    auth: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def token(self) -> dict[str, str]:
        """The subscription as a decision carries it."""
        keys = {"p256dh": base64url(point(self.key)), "auth": base64url(self.auth)}
        return {"token": self.endpoint, "type": "web"} | keys

    def decrypt(self, body: bytes) -> bytes:
        """The plaintext of a push message's body."""
        salt, record_size, id_length = body[:16], struct.unpack_from("!L", body, 16)[0], body[20]
        as_public, ciphertext = body[21 : 21 + id_length], body[21 + id_length :]
        assert len(ciphertext) <= record_size, "a push message is one record"
        ua_public = point(self.key)
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), as_public))
        ikm = _hmac(_hmac(self.auth, shared), b"WebPush: info\x00" + ua_public + as_public + b"\x01")
        prk = _hmac(salt, ikm)
        cek = _hmac(prk, b"Content-Encoding: aes128gcm\x00\x01")[:16]
        nonce = _hmac(prk, b"Content-Encoding: nonce\x00\x01")[:12]
        padded = AESGCM(cek).decrypt(nonce, ciphertext, None).rstrip(b"\x00")
        assert padded.endswith(b"\x02"), "the last record ends with the delimiter 2"
        return padded[:-1]


def _hmac(key: bytes, data: bytes) -> bytes:
    made = hmac.HMAC(key, hashes.SHA256())
    made.update(data)
    return made.finalize()
