"""Firebase Cloud Messaging, HTTP v1.

Requests and errors: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages and
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode. Authorised by an OAuth 2 token of a service account.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from app.sender.providers.answers import read_answer, retry_after_ms
from app.sender.providers.base import Accepted, Message, Outcome, Rejected, Retry, Unknown
from app.sender.providers.bearer import Bearer
from app.sender.providers.google_token import GoogleToken, NoToken
from app.sender.providers.http2 import Answer, Http2Client, Http2Settings
from schemas.decoding import json_decoder

PAYLOAD_BYTES_MAX: Final = 4096
QUOTA_PAUSE_MS: Final = 60_000
"""How long to wait after a 429 without ``Retry-After``, by Google's own advice."""
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
_ERROR_TYPE: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"

_encode = msgspec.json.Encoder().encode
_decode = json_decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class FcmSettings:
    """Parameters of `FcmProvider`.

    Parameters
    ----------
    credentials
        The service account's JSON file; it names the project.
    token_url
        Where tokens are given out; the credentials' own when empty.
    now_ms
        Event time: what is left of a message's life is told to the provider.
    """

    credentials: Path
    url: str = "https://fcm.googleapis.com"
    token_url: str = ""
    http: Http2Settings = field(default_factory=Http2Settings)
    token_age_s_min: float = 10.0
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class FcmProvider:
    """Android, and whatever else has registered with Firebase.

    Raises
    ------
    BadProvider
        If the credentials cannot be used.
    """

    def __init__(self, settings: FcmSettings, *, wall_s: Callable[[], float] = time.time) -> None:
        self._now_ms = settings.now_ms
        self._wall_s = wall_s
        token = GoogleToken(settings.credentials, settings.token_url, settings.http)
        self._url = f"{settings.url.rstrip('/')}/v1/projects/{token.project}/messages:send"
        self._bearer = Bearer(token.make, age_s_min=settings.token_age_s_min)
        self._http = Http2Client(settings.http)

    async def send(self, message: Message) -> Outcome:
        """Try once; a second time at once when the access token was refused."""
        body = fcm_body(message, self._now_ms(), self._wall_s())
        if isinstance(body, Rejected):
            return body
        try:
            token = await self._bearer.value()
            answer = await self._post(message, body, token)
            if isinstance(answer, Answer) and answer.status == 401:
                renewed = await self._bearer.renewed(token)
                if renewed != token:
                    answer = await self._post(message, body, renewed)
        except NoToken:
            return Retry("no_access_token")
        return read_fcm(answer, self._wall_s()) if isinstance(answer, Answer) else answer

    async def _post(self, message: Message, body: bytes, token: str) -> Answer | Rejected | Retry | Unknown:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if message.traceparent:
            headers["traceparent"] = message.traceparent
        return await self._http.post(self._url, headers, body)

    async def close(self) -> None:
        await self._http.close()


def fcm_body(message: Message, now_ms: int, wall_s: float) -> bytes | Rejected:
    """The request's JSON, or why the message cannot be one.

    The decision's id is the collapse key and the notification's tag, so that a message that is sent twice after a
    crash replaces itself.
    """
    token = message.token.get("token")
    if not isinstance(token, str) or not token:
        return Rejected("no_token")
    notification = {"title": message.title, "body": message.body}
    data = message.data | {"decisionId": message.id, "deepLink": message.deep_link}
    if len(_encode(notification)) + len(_encode(data)) > PAYLOAD_BYTES_MAX:
        return Rejected("payload_too_large")
    high = message.transactional
    android: dict[str, Any] = {
        "priority": "HIGH" if high else "NORMAL",
        "collapse_key": message.id,
        "notification": {"tag": message.id},
    }
    apns = {"apns-priority": "10" if high else "5", "apns-collapse-id": message.id[:64]}
    if message.expires_ms:
        left_s = max(0, message.expires_ms - now_ms) // 1_000
        android["ttl"] = f"{left_s}s"
        apns["apns-expiration"] = str(int(wall_s) + left_s)
    return _encode(
        {
            "message": {
                "token": token,
                "notification": notification,
                "data": data,
                "android": android,
                "apns": {"headers": apns},
            }
        }
    )


def read_fcm(answer: Answer, wall_s: float) -> Outcome:
    """What became of the message.

    A 500 (``INTERNAL``) may stand behind a message that was accepted. ``UNREGISTERED`` says that the token is gone.
    """
    if answer.status == 200:
        return Accepted(_text(_json(answer.body).get("name")))
    code = _error_code(answer.body)
    if code == "UNREGISTERED":
        return Rejected("unregistered", gone=True)
    if answer.status == 401:
        return Retry("http_401")
    if answer.status == 429:
        after_ms = retry_after_ms(answer.headers.get("retry-after"), wall_s)
        return Retry("http_429", QUOTA_PAUSE_MS if after_ms is None else after_ms)
    outcome = read_answer(answer.status, answer.headers.get("retry-after"), wall_s)
    if isinstance(outcome, Rejected):
        return Rejected("payload_too_large" if answer.status == 413 else (code.lower() or outcome.reason))
    return outcome


def _error_code(body: bytes) -> str:
    error = _json(body).get("error")
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _ERROR_TYPE:
            return _code(detail.get("errorCode"))
    return _code(error.get("status"))


def _code(value: object) -> str:
    """A code as Google's are. Anything else may quote the message, and a reason is told to everybody."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _json(body: bytes) -> dict[str, Any]:
    try:
        return _decode(body)
    except msgspec.MsgspecError:
        return {}


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
