"""Keys and certificates that the fakes and the providers under test share, made anew for each run."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

PROJECT = "shop"
TEAM, KEY_ID, TOPIC = "TEAM000001", "KEY0000001", "com.example.shop"


def pem(key: Any) -> bytes:
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return found


def public_pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@dataclass(frozen=True)
class Keys:
    """Files in one directory; the fakes read them there, too, in a process of their own."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.directory / "server.pem"

    @property
    def certificate_key(self) -> Path:
        return self.directory / "server-key.pem"

    @property
    def account(self) -> Path:
        """The Google service account's file."""
        return self.directory / "account.json"

    @property
    def apns(self) -> Path:
        return self.directory / "apns.p8"

    @property
    def vapid(self) -> Path:
        return self.directory / "vapid.pem"

    def read(self, name: str) -> bytes:
        """A public key in PEM: of ``account``, ``apns`` or ``vapid``."""
        return (self.directory / f"{name}.pub").read_bytes()


def make_keys(directory: Path) -> Keys:
    """All files, for a server called localhost or 127.0.0.1."""
    keys = Keys(directory)
    authority = trustme.CA()
    served = authority.issue_cert("localhost", "127.0.0.1", "push.test")
    authority.cert_pem.write_to_path(keys.ca)
    served.private_key_pem.write_to_path(keys.certificate_key)
    keys.certificate.write_bytes(b"".join(blob.bytes() for blob in served.cert_chain_pems))
    account = rsa.generate_private_key(65537, 2048)
    apns, vapid = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    keys.account.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "1",
                "private_key": pem(account).decode(),
                "client_email": "sender@shop.example",
                "token_uri": "https://unused.invalid/token",
            }
        )
    )
    keys.apns.write_bytes(pem(apns))
    keys.vapid.write_bytes(pem(vapid))
    for name, key in (("account", account), ("apns", apns), ("vapid", vapid)):
        (directory / f"{name}.pub").write_bytes(public_pem(key))
    return keys
