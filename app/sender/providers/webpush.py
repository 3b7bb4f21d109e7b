"""Web Push (RFC 8030) with encrypted payloads (RFC 8291) and voluntary identification (VAPID, RFC 8292)."""

from __future__ import annotations

import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import http_ece
import httpx
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.sender.providers.addresses import PUBLIC_ONLY, AddressRefused, AddressRule
from app.sender.providers.answers import read_answer
from app.sender.providers.apns import read_p256
from app.sender.providers.base import Accepted, BadProvider, Message, Outcome, Rejected, Retry
from app.sender.providers.bearer import Bearer
from app.sender.providers.hosts import HOSTS_MAX, BadEndpoint, Endpoint, Hosts, TooManyHosts, read_endpoint
from app.sender.providers.http2 import Answer, Failure, Http2Settings

PAYLOAD_BYTES_MAX: Final = 3993
"""What a service must take is 4096 bytes (RFC 8030, 7.2); header, padding and tag take 103 of them."""
TTL_S_DEFAULT: Final = 24 * 3600
TTL_S_MAX: Final = 28 * 24 * 3600
VAPID_AGE_S_MAX: Final = 12 * 3600.0
"""A service may refuse a token that ends more than a day ahead (RFC 8292, 2)."""
TOPIC_CHARS_MAX: Final = 32

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class WebPushSettings:
    """Parameters of `WebPushProvider`.

    Parameters
    ----------
    key
        PEM file of the application server's key, on P-256: the browser subscribed with its public half.
    subject
        Whom a push service may write to: ``mailto:…`` or ``https://…``.
    now_ms
        Event time: what is left of a message's life is told to the service.
    """

    key: Path
    subject: str
    addresses: AddressRule = PUBLIC_ONLY
    http: Http2Settings = field(default_factory=Http2Settings)
    token_age_s_min: float = 10.0
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class WebPushProvider:
    """Browsers, through whatever push service each of them has chosen.

    Raises
    ------
    BadProvider
        If key or subject cannot be used.
    """

    def __init__(self, settings: WebPushSettings, *, wall_s: Callable[[], float] = time.time) -> None:
        if not settings.subject.startswith(("mailto:", "https://")):
            raise BadProvider("webpush subject: expected mailto:ADDRESS or an https:// URL")
        self._settings = settings
        self._wall_s = wall_s
        self._key = read_p256(settings.key, "webpush key")
        self.public_key = _base64url(public_bytes(self._key))
        self._bearers: OrderedDict[str, Bearer] = OrderedDict()
        self._hosts = Hosts(settings.http, settings.addresses)

    async def send(self, message: Message) -> Outcome:
        """Try once; a second time at once when the token was refused."""
        found = message.token.get("token")
        if not isinstance(found, str) or not found:
            return Rejected("no_token")
        try:
            endpoint = read_endpoint(found)
        except BadEndpoint:
            return Rejected("bad_endpoint", gone=True)
        payload = webpush_payload(message)
        if len(payload) > PAYLOAD_BYTES_MAX:
            return Rejected("payload_too_large")
        try:
            body = encrypt(payload, message.token.get("p256dh"), message.token.get("auth"))
        except ValueError:
            return Rejected("bad_subscription", gone=True)
        try:
            answer = await self._post_authorised(message, endpoint, body)
        except AddressRefused:
            return Rejected("address_refused")
        except TooManyHosts:
            return Retry("too_many_hosts")
        except httpx.ConnectError:
            return Retry("unknown_host")
        return read_webpush(answer, self._wall_s()) if isinstance(answer, Answer) else answer

    async def _post_authorised(self, message: Message, endpoint: Endpoint, body: bytes) -> Answer | Failure:
        bearer = self._bearer(endpoint.origin)
        token = await bearer.value()
        headers = webpush_headers(message, self._settings.now_ms())
        async with self._hosts.client(endpoint) as client:
            answer = await client.post(endpoint.url, headers | self._authorization(token), body)
            if isinstance(answer, Answer) and answer.status in (401, 403):
                renewed = await bearer.renewed(token)
                if renewed != token:
                    answer = await client.post(endpoint.url, headers | self._authorization(renewed), body)
            return answer

    def _authorization(self, token: str) -> dict[str, str]:
        return {"authorization": f"vapid t={token}, k={self.public_key}"}

    def _bearer(self, origin: str) -> Bearer:
        bearer = self._bearers.get(origin)
        if bearer is None:

            async def make() -> tuple[str, float]:
                ends_s = int(self._wall_s() + VAPID_AGE_S_MAX) + 300
                claims = {"aud": origin, "exp": ends_s, "sub": self._settings.subject}
                return jwt.encode(claims, self._key, algorithm="ES256"), VAPID_AGE_S_MAX

            bearer = self._bearers[origin] = Bearer(make, age_s_min=self._settings.token_age_s_min)
            if len(self._bearers) > HOSTS_MAX:
                self._bearers.popitem(last=False)
        else:
            self._bearers.move_to_end(origin)
        return bearer

    async def close(self) -> None:
        await self._hosts.close()


def webpush_headers(message: Message, now_ms: int) -> dict[str, str]:
    """What the service is told. The topic makes a message that is sent twice replace itself while it waits."""
    ttl_s = TTL_S_DEFAULT
    if message.expires_ms:
        ttl_s = min(max(0, message.expires_ms - now_ms) // 1_000, TTL_S_MAX)
    headers = {
        "content-type": "application/octet-stream",
        "content-encoding": "aes128gcm",
        "ttl": str(ttl_s),
        "urgency": "high" if message.transactional else "normal",
    }
    topic = message.id.replace("-", "")
    if len(topic) <= TOPIC_CHARS_MAX and topic.isalnum():
        headers["topic"] = topic
    if message.traceparent:
        headers["traceparent"] = message.traceparent
    return headers


def webpush_payload(message: Message) -> bytes:
    """The JSON that the page's service worker gets."""
    found: dict[str, Any] = {"id": message.id, "title": message.title, "body": message.body}
    if message.deep_link:
        found["deepLink"] = message.deep_link
    if message.data:
        found["data"] = message.data
    return _encode(found)


def encrypt(payload: bytes, p256dh: object, auth: object) -> bytes:
    """The payload for the holder of the subscription's private key, by a key pair made for this message.

    Raises
    ------
    ValueError
        If the subscription's keys are none.
    """
    if not isinstance(p256dh, str) or not isinstance(auth, str):
        raise ValueError("a subscription has two keys")
    theirs, secret = _unbase64url(p256dh), _unbase64url(auth)
    if len(secret) != 16:
        raise ValueError("the authentication secret has 16 bytes")
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)  # ValueError where it is no point
    mine = ec.generate_private_key(ec.SECP256R1())
    body: bytes = http_ece.encrypt(
        payload,
        private_key=mine,
        dh=theirs,
        auth_secret=secret,
        version="aes128gcm",
    )
    return body


def read_webpush(answer: Answer, wall_s: float) -> Outcome:
    """What became of the message (RFC 8030, 5 and 7.3: 404 and 410 say that the subscription is gone)."""
    if answer.status in (200, 201, 202):
        return Accepted(answer.headers.get("location", "")[-64:])
    if answer.status in (404, 410):
        return Rejected(f"http_{answer.status}", gone=True)
    if answer.status in (401, 403):
        return Retry(f"http_{answer.status}")
    if answer.status == 413:
        return Rejected("payload_too_large")
    return read_answer(answer.status, answer.headers.get("retry-after"), wall_s)


def public_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half as an uncompressed point, 65 bytes."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64url(text: str) -> bytes:
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
