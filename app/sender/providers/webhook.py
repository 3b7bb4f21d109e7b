"""The webhook provider: POST the message as JSON to a URL of the operator's.

The receiver can trust and de-duplicate it: `Idempotency-Key` is the decision id, and the signature follows Standard
Webhooks (https://github.com/standard-webhooks/standard-webhooks, "Signature scheme"):
``webhook-signature: v1,base64(HMAC-SHA256(secret, "{webhook-id}.{webhook-timestamp}.{body}"))``.

An answer is read strictly: only what says that the request was not acted upon (429, 503, a connection that could not
be made) is `Retry`. A lost answer, or a 500, 502 or 504, may come from behind a request that was acted upon: `Unknown`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx

from app.sender.providers.addresses import PUBLIC_ONLY, AddressRefused, AddressRule, GuardedTransport
from app.sender.providers.answers import read_answer, word
from app.sender.providers.base import (
    BadProvider,
    Message,
    Outcome,
    Rejected,
    Retry,
    Unknown,
    encode_message,
)

SECRET_BYTES_MIN: Final = 16
ANSWER_BYTES_MAX: Final = 65_536
DRAIN_S: Final = 1.0

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where to post and how long to wait. Plain HTTP is accepted only where loopback or private addresses are.

    Parameters
    ----------
    secret
        Signs the body; at least `SECRET_BYTES_MIN` bytes.
    timeout_s
        For the whole exchange; must be longer than `connect_timeout_s`, or an attempt to connect that was given up
        could not be told from a lost answer.
    """

    url: str
    secret: bytes = field(repr=False)
    timeout_s: float = 10.0
    connect_timeout_s: float = 3.0
    connections_max: int = 64
    addresses: AddressRule = PUBLIC_ONLY


class WebhookProvider:
    """One endpoint, one connection pool.

    Raises
    ------
    BadProvider
        If the settings cannot work; the text names the field.
    """

    def __init__(self, settings: WebhookSettings, *, wall_s: Callable[[], float] = time.time) -> None:
        _check(settings)
        self._settings = settings
        self._wall_s = wall_s
        limits = httpx.Limits(
            max_connections=settings.connections_max, max_keepalive_connections=settings.connections_max
        )
        self._client = httpx.AsyncClient(
            transport=GuardedTransport(httpx.AsyncHTTPTransport(limits=limits), settings.addresses),
            timeout=httpx.Timeout(settings.timeout_s, connect=settings.connect_timeout_s),
            follow_redirects=False,  # a redirect would carry the message where the operator did not say
            trust_env=False,  # a proxy from the environment would resolve the host again, unchecked
        )

    async def send(self, message: Message) -> Outcome:
        """POST once."""
        body = encode_message(message)
        request = self._client.build_request(
            "POST", self._settings.url, content=body, headers=self._headers(message, body)
        )
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                response = await self._client.send(request, stream=True)
        except AddressRefused:
            return Rejected("address_refused")
        except _NOT_SENT as exc:
            return Retry(word(type(exc).__name__))
        except httpx.LocalProtocolError:
            return Rejected("invalid_request")
        except (httpx.TransportError, TimeoutError) as exc:
            return Unknown(word(type(exc).__name__))
        await _drain(response)
        return read_answer(response.status_code, response.headers.get("retry-after"), self._wall_s())

    async def close(self) -> None:
        await self._client.aclose()

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._wall_s()))
        headers = {
            "content-type": "application/json",
            "user-agent": "nudge",
            "idempotency-key": message.id,
            "webhook-id": message.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": sign(self._settings.secret, message.id, timestamp, body),
        }
        if message.traceparent:
            headers["traceparent"] = message.traceparent
        return headers


def sign(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


async def _drain(response: httpx.Response) -> None:
    """Read the rest, so that the connection can be used again. The status has decided: nothing here changes it."""
    size = 0
    try:
        with contextlib.suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > ANSWER_BYTES_MAX:
                        return
    finally:
        await response.aclose()


def _check(settings: WebhookSettings) -> None:
    url = httpx.URL(settings.url)
    near = settings.addresses.loopback or settings.addresses.private
    if url.scheme not in ("http", "https") or not url.host:
        raise BadProvider("webhook url: expected http(s)://HOST[:PORT][/PATH]")
    if url.scheme == "http" and not near:
        raise BadProvider("webhook url: messages are personal data, so it must be https://")
    if len(settings.secret) < SECRET_BYTES_MIN:
        raise BadProvider(f"webhook secret: {len(settings.secret)} bytes; at least {SECRET_BYTES_MIN}")
    if not 0 < settings.connect_timeout_s < settings.timeout_s:
        raise BadProvider("webhook timeout: must be longer than the connect timeout, and both above 0")
