"""What an operator may ask a worker for: one user's row and its explanation, with a token, on the health port.

The user's id travels in the body, never in an address, and never reaches a log line. Reading only: nothing here
changes state.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
from aiohttp import web

log = structlog.get_logger(__name__)

BODY_BYTES_MAX: Final = 4096
USER_PATH: Final = "/admin/user"


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a call: whose row, and whether the row itself is wanted beside its explanation."""

    user: str
    row: bool = False


Answer = Callable[[Question], Awaitable[bytes | None]]


def bearer_is(token: str, header: str | None) -> bool:
    """Whether an Authorization header carries the token; compared in constant time. An empty token admits nobody."""
    scheme, _, given = (header or "").partition(" ")
    same = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token.encode())  # bytes may be any
    return bool(token) and scheme.lower() == "bearer" and same


class Admin:
    """The routes.

    Parameters
    ----------
    token
        What callers must show; when empty every call is refused.
    answer
        Gives the JSON of a user, None when no row of theirs is here.
    """

    def __init__(self, token: str, answer: Answer) -> None:
        self._token = token
        self._answer = answer

    def routes(self) -> list[web.RouteDef]:
        """For the process's HTTP server."""
        return [web.post(USER_PATH, self._user)]

    async def _user(self, request: web.Request) -> web.Response:
        response = await self._respond(request)
        log.info("admin_call", path=USER_PATH, status=response.status, caller=request.remote)
        return response

    async def _respond(self, request: web.Request) -> web.Response:
        if not self._token:
            return _problem(403, "admin calls are off: set NUDGE_ADMIN_TOKEN on the worker")
        if not bearer_is(self._token, request.headers.get("Authorization")):
            return _problem(401, "the bearer token is missing or wrong (NUDGE_ADMIN_TOKEN)")
        if (request.content_length or 0) > BODY_BYTES_MAX:
            return _problem(413, "the body is too large")
        try:
            question = msgspec.json.decode(await request.content.read(BODY_BYTES_MAX), type=Question)
        except msgspec.MsgspecError:
            return _problem(400, 'the body is {"user": "…"}')
        answer = await self._answer(question)
        if answer is None:
            return _problem(404, "no row of this user is on this worker")
        return web.Response(body=answer, content_type="application/json", headers={"Cache-Control": "no-store"})


def _problem(status: int, message: str) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return web.json_response({"error": message}, status=status, headers=headers)
