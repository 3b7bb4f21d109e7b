"""Access tokens of a Google service account, by google-auth."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import httpx
from google.auth import exceptions, transport
from google.oauth2 import service_account

from app.sender.providers.base import BadProvider
from app.sender.providers.http2 import Http2Settings

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
_RENEW_EARLY_S: Final = 300.0
_NO_TOKEN: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""What google-auth lets through of an answer that is none: a login page with status 200, say, or no `expires_in`."""


class NoToken(Exception):
    """The token service cannot be reached or refuses us."""


class GoogleToken:
    """Gives tokens; `project` is the account's project.

    Parameters
    ----------
    credentials
        The service account's JSON file.
    token_url
        Where tokens are given out; the file's own when empty.

    Raises
    ------
    BadProvider
        If the file is not a service account's.
    """

    def __init__(self, credentials: Path, token_url: str, http: Http2Settings) -> None:
        try:
            info = json.loads(credentials.read_text())
            if token_url:
                info["token_uri"] = token_url
            self.project = str(info["project_id"])
            self._credentials: Any = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                info, scopes=[SCOPE]
            )
        except OSError as exc:
            raise BadProvider(f"fcm credentials {str(credentials)!r}: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, exceptions.GoogleAuthError) as exc:
            # Without the cause and its text: it may quote the file, which holds a private key.
            what = type(exc).__name__
            raise BadProvider(f"fcm credentials {str(credentials)!r}: not a service account's file ({what})") from None
        self._context = ssl.create_default_context()
        if http.ca_file is not None:
            self._context.load_verify_locations(http.ca_file)
        self._timeout_s = http.timeout_s

    async def make(self) -> tuple[str, float]:
        """A new access token, and how long to use it (seconds). Raises `NoToken`."""
        try:
            await asyncio.to_thread(self._refresh)  # google-auth waits for the network
            ends_s: float = self._credentials.expiry.replace(tzinfo=UTC).timestamp()  # naive, and in UTC
        except (exceptions.GoogleAuthError, *_NO_TOKEN) as exc:
            raise NoToken(type(exc).__name__) from None
        lasts_s = ends_s - time.time()
        return str(self._credentials.token), max(lasts_s / 2, lasts_s - _RENEW_EARLY_S)

    def _refresh(self) -> None:
        with httpx.Client(verify=self._context, trust_env=False, timeout=self._timeout_s) as client:
            self._credentials.refresh(_Request(client))


class _Response(transport.Response):
    """What google-auth reads of an answer."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def data(self) -> bytes:
        return self._response.content


class _Request(transport.Request):
    """google-auth's requests by httpx."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_kwargs: Any,
    ) -> _Response:
        try:
            return _Response(self._client.request(method, url, content=body, headers=headers))
        except httpx.HTTPError as exc:
            raise exceptions.TransportError(type(exc).__name__) from exc  # type: ignore[no-untyped-call]
