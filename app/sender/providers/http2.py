"""Requests to push services: HTTP/2 over TLS, many at a time on one connection.

The client is pyreqwest (Rust's reqwest and hyper): a tenth of httpx's processor time a request, and it survives a
service that closes a connection in good order (GOAWAY), which FCM and APNs do every few minutes; httpx loses the
answers of whatever was on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from pyreqwest import exceptions
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.response import Response

from app.sender.providers.base import BadProvider, Rejected, Retry, Unknown

ANSWER_BYTES_MAX: Final = 65_536
_NOT_CONNECTED: Final = "client error (Connect)"
"""hyper's word for: no connection was made. Other errors that reqwest files under "connect" may hide a lost answer."""


@dataclass(frozen=True, slots=True)
class Http2Settings:
    """How to reach a push service.

    Parameters
    ----------
    timeout_s
        For the whole exchange.
    ca_file
        PEM file of further authorities to trust, beside the system's.
    """

    timeout_s: float = 10.0
    connect_timeout_s: float = 3.0
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and (bounded) body of an HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


Failure = Rejected | Retry | Unknown


class Http2Client:
    """One connection pool. Close it: the process must not end while its thread is at work.

    Parameters
    ----------
    pinned
        A host and the one address to connect to: the name is not looked up again.

    Raises
    ------
    BadProvider
        If the authorities cannot be read.
    """

    def __init__(self, settings: Http2Settings, *, pinned: tuple[str, str] | None = None) -> None:
        builder = (
            ClientBuilder()
            .http2(True)
            .https_only(True)
            .follow_redirects(False)  # a redirect would carry the message where nobody said
            .no_proxy()  # a proxy from the environment would look names up again, unchecked
            .timeout(timedelta(seconds=settings.timeout_s))
            .connect_timeout(timedelta(seconds=settings.connect_timeout_s))
            .http2_keep_alive_interval(timedelta(seconds=30))  # a dead connection is noticed between two messages
            .http2_keep_alive_timeout(timedelta(seconds=10))
            .user_agent("nudge")
        )
        if settings.ca_file is not None:
            builder = _trust(builder, settings.ca_file)
        if pinned is not None:
            builder = builder.resolve(pinned[0], pinned[1], 0)
        self._client: Client = builder.build()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer | Failure:
        """POST once. A failure says whether the request can have been acted upon."""
        try:
            request = self._client.post(url).headers(dict(headers)).body_bytes(body).build_streamed()
            async with request as response:
                return Answer(response.status, dict(response.headers), await _read(response))
        except exceptions.BuilderError:
            return Rejected("invalid_request")
        except exceptions.RequestError as exc:
            if _was_not_sent(exc):
                return Retry("not_connected")
            return Unknown("timeout" if isinstance(exc, exceptions.RequestTimeoutError) else "connection_lost")

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _read(response: Response) -> bytes:
    """The start of the body. The status has decided: a body that breaks off changes nothing."""
    try:
        return bytes(await response.body_reader.read(ANSWER_BYTES_MAX) or b"")
    except exceptions.RequestError:
        return b""


def _was_not_sent(exc: exceptions.RequestError) -> bool:
    return any(cause["message"] == _NOT_CONNECTED for cause in exc.details["causes"] or ())


def _trust(builder: ClientBuilder, ca_file: Path) -> ClientBuilder:
    try:
        return builder.add_root_certificate_pem(ca_file.read_bytes())
    except (OSError, ValueError, exceptions.PyreqwestError) as exc:
        raise BadProvider(f"ca file {str(ca_file)!r}: cannot be read as PEM certificates") from exc
