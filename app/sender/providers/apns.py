"""Apple Push Notification service: HTTP/2 with a provider token.

Requests, headers and errors: https://developer.apple.com/documentation/usernotifications, "Sending notification
requests to APNs", "Handling notification responses from APNs", "Establishing a token-based connection to APNs".
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.sender.providers.answers import read_answer, word
from app.sender.providers.base import Accepted, BadProvider, Message, Outcome, Rejected, Retry
from app.sender.providers.bearer import Bearer
from app.sender.providers.http2 import Answer, Failure, Http2Client, Http2Settings
from schemas.decoding import json_decoder

PAYLOAD_BYTES_MAX: Final = 4096
TOKEN_AGE_S_MAX: Final = 50 * 60.0
"""Apple takes a provider token for an hour."""
TOKEN_AGE_S_MIN: Final = 20 * 60.0
"""And refuses a provider that makes new ones more often than this."""

_DEVICE_TOKEN = re.compile(r"[0-9a-fA-F]{32,200}")  # it becomes a part of the path
_NAMESPACE = uuid.UUID("7b0c1a52-49a5-5a0e-8f0c-2f6d36a1d0e4")
_GONE = frozenset({"BadDeviceToken", "Unregistered", "ExpiredToken"})
_TOKEN_REFUSED = frozenset({"ExpiredProviderToken", "InvalidProviderToken", "MissingProviderToken"})

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ApnsSettings:
    """Parameters of `ApnsProvider`.

    Parameters
    ----------
    key
        The .p8 file (PKCS #8, an elliptic-curve key on P-256) of the key `key_id` of team `team_id`.
    topic
        The app's bundle id.
    now_ms
        Event time: what is left of a message's life is told to the provider.
    """

    key: Path
    key_id: str
    team_id: str
    topic: str
    url: str = "https://api.push.apple.com"
    http: Http2Settings = field(default_factory=Http2Settings)
    token_age_s_min: float = TOKEN_AGE_S_MIN
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class ApnsProvider:
    """Apple devices.

    Raises
    ------
    BadProvider
        If the key cannot be used or a name is missing.
    """

    def __init__(self, settings: ApnsSettings, *, wall_s: Callable[[], float] = time.time) -> None:
        for name in ("key_id", "team_id", "topic"):
            if not getattr(settings, name):
                raise BadProvider(f"apns {name}: needed beside the key")
        self._settings = settings
        self._key = read_p256(settings.key, "apns key")
        self._wall_s = wall_s
        self._url = settings.url.rstrip("/")
        self._bearer = Bearer(self._make_token, age_s_min=settings.token_age_s_min)
        self._http = Http2Client(settings.http)

    async def _make_token(self) -> tuple[str, float]:
        claims = {"iss": self._settings.team_id, "iat": int(self._wall_s())}
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._settings.key_id})
        return token, TOKEN_AGE_S_MAX

    async def send(self, message: Message) -> Outcome:
        """Try once; a second time at once when the provider token was refused and may be made anew."""
        device = message.token.get("token")
        if not isinstance(device, str) or not device:
            return Rejected("no_token")
        if not _DEVICE_TOKEN.fullmatch(device):
            return Rejected("bad_device_token", gone=True)
        body = apns_body(message)
        if len(body) > PAYLOAD_BYTES_MAX:
            return Rejected("payload_too_large")
        token = await self._bearer.value()
        answer = await self._post(message, device, body, token)
        if isinstance(answer, Answer) and _refuses_token(answer):
            renewed = await self._bearer.renewed(token)
            if renewed != token:
                answer = await self._post(message, device, body, renewed)
        return read_apns(answer, self._wall_s()) if isinstance(answer, Answer) else answer

    async def _post(self, message: Message, device: str, body: bytes, token: str) -> Answer | Failure:
        headers = apns_headers(message, self._settings.now_ms(), self._wall_s())
        headers |= {"authorization": f"bearer {token}", "apns-topic": self._settings.topic}
        return await self._http.post(f"{self._url}/3/device/{device}", headers, body)

    async def close(self) -> None:
        await self._http.close()


def apns_headers(message: Message, now_ms: int, wall_s: float) -> dict[str, str]:
    """What Apple is told about the message.

    ``apns-id`` is the decision's id, which is a UUID, and so is the collapse id: a message that is sent twice after a
    crash replaces itself on the device. Without an expiry Apple tries once and keeps nothing.
    """
    headers = {
        "apns-push-type": "alert",
        "apns-id": apns_id(message.id),
        "apns-collapse-id": message.id[:64],
        "apns-priority": "10" if message.transactional else "5",
        "apns-expiration": "0",
    }
    if message.expires_ms:
        headers["apns-expiration"] = str(int(wall_s) + max(0, message.expires_ms - now_ms) // 1_000)
    if message.traceparent:
        headers["traceparent"] = message.traceparent
    return headers


def apns_id(message_id: str) -> str:
    """The message's id where it is a UUID, else one made of it.

    Examples
    --------
    >>> apns_id("a6202de5-258d-50bf-92fa-487410811146"), apns_id("welcome-7")
    ('a6202de5-258d-50bf-92fa-487410811146', '59d61870-baef-5581-932f-c51b7f24ef7b')
    """
    try:
        return str(uuid.UUID(message_id))
    except ValueError:
        return str(uuid.uuid5(_NAMESPACE, message_id))


def apns_body(message: Message) -> bytes:
    """The notification; whatever the app needs to open the right page stands beside ``aps``."""
    own: dict[str, Any] = {name: value for name, value in message.data.items() if name != "aps"}
    own |= {"decisionId": message.id, "deepLink": message.deep_link}
    return _encode({"aps": {"alert": {"title": message.title, "body": message.body}}} | own)


def read_apns(answer: Answer, wall_s: float) -> Outcome:
    """What became of the message. A 500 may stand behind one that was accepted."""
    if answer.status == 200:
        return Accepted(answer.headers.get("apns-id", "")[:64])
    reason = _reason(answer.body)
    if reason in _GONE or answer.status == 410:
        return Rejected(word(reason) or "unregistered", gone=True)
    if _refuses_token(answer):
        return Retry(word(reason) or f"http_{answer.status}")
    outcome = read_answer(answer.status, answer.headers.get("retry-after"), wall_s)
    if isinstance(outcome, Rejected):
        return Rejected("payload_too_large" if answer.status == 413 else (word(reason) or outcome.reason))
    return outcome


def _refuses_token(answer: Answer) -> bool:
    return answer.status == 401 or (answer.status == 403 and _reason(answer.body) in _TOKEN_REFUSED)


class _Error(msgspec.Struct):
    reason: str = ""


_decode_error = json_decoder(_Error)


def _reason(body: bytes) -> str:
    try:
        reason = _decode_error(body).reason
    except msgspec.MsgspecError:
        return ""
    return reason if re.fullmatch(r"[A-Za-z]{1,60}", reason) else ""


def read_p256(path: Path, what: str) -> EllipticCurvePrivateKey:
    """A private key on P-256 from a PEM file. Raises `BadProvider`."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as exc:
        raise BadProvider(f"{what} {str(path)!r}: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise BadProvider(f"{what} {str(path)!r}: not a PEM private key ({type(exc).__name__})") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise BadProvider(f"{what} {str(path)!r}: not an elliptic-curve key on P-256")
    return key
