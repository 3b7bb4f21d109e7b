"""The fakes as one ASGI app: FCM HTTP v1 with its token service, APNs, and a Web Push service.

They check what the real ones check (tokens, signatures, sizes) and then do what the test says: refuse, wait, break the
connection before or after they have accepted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import jwt

from tests.support.push.keys import KEY_ID, PROJECT, TEAM, TOPIC, Keys

BODY_BYTES_MAX = 4096
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Behaviour:
    """What a service does with a message that it could accept.

    Parameters
    ----------
    cut
        Break the connection ``before`` accepting, or ``after`` (the answer is lost).
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    delay_s: float = 0.0
    cut: str = ""


OK = Behaviour()
RESET = Behaviour(cut="before")
LOST = Behaviour(cut="after")


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    service: str
    path: str
    headers: dict[str, str]
    body: bytes
    http_version: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakePush:
    """State of all services. `script` is used up first, then `otherwise` holds.

    `accepted` counts messages by the id that the service would collapse them by: what a device would show.
    """

    def __init__(self, keys: Keys, *, record: bool = True, otherwise: Behaviour = OK) -> None:
        self.keys = keys
        self.script: deque[Behaviour] = deque()
        self.otherwise = otherwise
        self.requests: list[Received] = []
        self.accepted: Counter[str] = Counter()
        self.tokens_given = 0
        self.tokens: set[str] = set()
        self.token_lasts_s = 3600
        self.token_service = OK
        self.refused: set[str] = set()
        self.gone: set[str] = set()
        self.on_cut: Callable[[], None] = lambda: None
        self._record = record
        self._public = {name: keys.read(name) for name in ("account", "apns", "vapid")}

    def do(self, *behaviours: Behaviour) -> None:
        """The next messages are treated so."""
        self.script.extend(behaviours)

    def revoke(self) -> None:
        """Every access token given so far is refused from now on."""
        self.tokens.clear()

    def of(self, service: str) -> list[Received]:
        """Requests to one service."""
        return [request for request in self.requests if request.service == service]

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = Received(_service(scope["path"]), scope["path"], headers, body, scope["http_version"])
        if self._record:
            self.requests.append(request)
        answer = await self._answer(request)
        if answer is None:
            while (await receive())["type"] != "http.disconnect":  # there is nobody to answer
                pass
            return
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        raw = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, request: Received) -> Behaviour | None:
        if request.service == "token":
            return self._give_token(request)
        refusal = _CHECKS[request.service](self, request)
        if refusal is not None:
            return refusal
        behaviour = self.script.popleft() if self.script else self.otherwise
        if behaviour.delay_s:
            await asyncio.sleep(behaviour.delay_s)
        message_id = _MESSAGE_ID[request.service](request)
        if behaviour.cut:
            self.accepted[message_id] += behaviour.cut == "after"
            self.on_cut()
            return None
        if behaviour.status != 200:
            return behaviour
        self.accepted[message_id] += 1
        return _SUCCESS[request.service](message_id)

    def _give_token(self, request: Received) -> Behaviour:
        form = parse_qs(request.body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        jwt.decode(form["assertion"][0], self._public["account"], ["RS256"], options={"verify_aud": False})
        if self.token_service is not OK:
            return self.token_service
        self.tokens_given += 1
        token = f"token-{self.tokens_given}"
        self.tokens.add(token)
        found = {"access_token": token, "expires_in": self.token_lasts_s, "token_type": "Bearer"}
        return Behaviour(headers={"content-type": "application/json"}, body=found)

    def check_fcm(self, request: Received) -> Behaviour | None:
        if request.path != f"/v1/projects/{PROJECT}/messages:send":
            return Behaviour(404, body=fcm_error("NOT_FOUND"))
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return Behaviour(401, body=fcm_error("UNAUTHENTICATED"))
        if len(request.body) > 2 * BODY_BYTES_MAX:
            return Behaviour(413)
        if self.gone and request.json["message"]["token"] in self.gone:
            return Behaviour(404, body=fcm_error("NOT_FOUND", "UNREGISTERED"))
        return None

    def check_apns(self, request: Received) -> Behaviour | None:
        token = request.headers.get("authorization", "").removeprefix("bearer ")
        if token in self.refused:
            return Behaviour(403, body={"reason": "ExpiredProviderToken"})
        try:
            assert jwt.get_unverified_header(token)["kid"] == KEY_ID
            claims = jwt.decode(token, self._public["apns"], ["ES256"])
            assert claims["iss"] == TEAM
            assert abs(time.time() - claims["iat"]) < 3600
        except (jwt.InvalidTokenError, AssertionError):
            return Behaviour(403, body={"reason": "InvalidProviderToken"})
        if request.headers.get("apns-topic") != TOPIC:
            return Behaviour(400, body={"reason": "TopicDisallowed"})
        return Behaviour(413, body={"reason": "PayloadTooLarge"}) if len(request.body) > BODY_BYTES_MAX else None

    def check_webpush(self, request: Received) -> Behaviour | None:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        origin = f"https://{request.headers.get('host') or request.headers.get(':authority')}"
        try:
            assert scheme == "vapid"
            assert fields["t"] not in self.refused
            jwt.decode(fields["t"], self._public["vapid"], ["ES256"], audience=origin)
        except (jwt.InvalidTokenError, AssertionError, KeyError):
            return Behaviour(403)
        return Behaviour(413) if len(request.body) > BODY_BYTES_MAX else None


def fcm_error(code: str, fcm: str = "") -> dict[str, Any]:
    """An error as FCM writes it."""
    detail = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": fcm}
    return {"error": {"status": code, "message": "…", "details": [detail] if fcm else []}}


def _service(path: str) -> str:
    first = path.split("/")[1]
    return {"token": "token", "v1": "fcm", "3": "apns"}.get(first, "webpush")


_CHECKS: dict[str, Callable[[FakePush, Received], Behaviour | None]] = {
    "fcm": FakePush.check_fcm,
    "apns": FakePush.check_apns,
    "webpush": FakePush.check_webpush,
}
_MESSAGE_ID: dict[str, Callable[[Received], str]] = {
    "fcm": lambda request: str(request.json["message"]["android"]["collapse_key"]),
    "apns": lambda request: request.headers["apns-id"],
    "webpush": lambda request: request.headers.get("topic", ""),
}
_SUCCESS: dict[str, Callable[[str], Behaviour]] = {
    "fcm": lambda message_id: Behaviour(body={"name": f"projects/{PROJECT}/messages/{message_id}"}),
    "apns": lambda message_id: Behaviour(headers={"apns-id": message_id}),
    "webpush": lambda message_id: Behaviour(201, headers={"location": f"/m/{message_id}"}),
}


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
