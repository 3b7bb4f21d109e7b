"""The console's HTTP server: one page, its state as JSON and as a stream, and one user when asked for.

It only reads: no route changes anything. The page loads nothing from elsewhere and runs no inline script, which the
Content-Security-Policy enforces. A request must name us as its host, so that a foreign page cannot reach a console on
loopback by a name of its own (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp import web
from aiokafka.errors import KafkaError

from app.admin import BODY_BYTES_MAX, bearer_is
from app.console.board import Board
from app.console.feed import TopicFeed
from app.console.scrape import new_session, scrape
from app.console.tally import Tally
from app.core.explain import explain_score
from app.explain.ask import ask_workers
from app.explain.life import Life, read_life
from app.learning.contract import BadModel
from app.learning.serving import read_scorer
from app.settings import Settings

log = structlog.get_logger(__name__)

TICK_S: Final = 1.0
STREAMS_MAX: Final = 16
SCAN_S_MAX: Final = 6.0
DEFAULT_MODEL: Final = "open"
ASSETS: Final = {
    "index.html": "text/html",
    "console.css": "text/css",
    "console.js": "text/javascript",
    "charts.js": "text/javascript",
    "user.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _UserQuestion(msgspec.Struct, forbid_unknown_fields=True):
    user: str


class ConsoleServer:
    """Serves until it is stopped; whatever fails behind it is shown on the page, and never ends it.

    Parameters
    ----------
    settings
        `console_*`, `worker_urls`, `admin_token`, `secret`, and how to reach Kafka.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._token = settings.console_token.get_secret_value()
        self._loopback = ipaddress.ip_address(settings.console_host).is_loopback
        self.tally = Tally(settings.secret_bytes())
        self._feed = TopicFeed(settings.client_settings(), self.tally)
        self._board = Board(self.tally, self._feed)
        self._state = b"{}"
        self._ticked = asyncio.Condition()
        self._streams = 0
        self._looking = asyncio.Semaphore(2)
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._assets = {name: resources.files("app.console").joinpath("assets", name).read_bytes() for name in ASSETS}
        self.port = settings.console_port

    @property
    def url(self) -> str:
        """Where the page is."""
        host = self._settings.console_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    async def start(self) -> None:
        """Listen, and begin to read. Raises `OSError` when the port is taken."""
        app = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/", self._index)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/assets/{name}", self._asset)
        app.router.add_get("/api/state", self._state_now)
        app.router.add_get("/api/stream", self._stream)
        app.router.add_post("/api/user", self._user)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.console_host, self._settings.console_port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._tasks = [asyncio.create_task(self._feed.run()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """Stop reading and listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _watch(self) -> None:
        """Every second: ask the processes, and tell those who listen."""
        urls = self._settings.worker_endpoints()
        failed = False
        async with new_session() as session:
            while True:
                began = time.time()
                try:
                    self._board.tick(await scrape(session, urls), began)
                    self._state = msgspec.json.encode(self._board.state() | {"search": self._search()})
                    failed = False
                except Exception:  # a page that shows less is better than none; the log has the reason, once
                    if not failed:
                        log.exception("console_tick_failed")
                    failed = True
                async with self._ticked:
                    self._ticked.notify_all()
                await asyncio.sleep(max(0.1, TICK_S - (time.time() - began)))

    def _search(self) -> dict[str, bool]:
        return {"needs_token": bool(self._token), "rows": bool(self._settings.admin_token.get_secret_value())}

    # -- requests

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._loopback and not _is_local(request.host):
            return _json(403, {"error": "this console answers to its loopback address only"})
        try:
            response = await handler(request)
        except web.HTTPException as exc:
            response = _json(exc.status, {"error": exc.reason})
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _index(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._assets["index.html"], content_type="text/html", charset="utf-8")

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._assets:
            return _json(404, {"error": "no such file"})
        return web.Response(body=self._assets[name], content_type=ASSETS[name], charset="utf-8")

    async def _state_now(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._state, content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the whole state, once a second."""
        if self._streams >= STREAMS_MAX:
            return _json(503, {"error": f"{STREAMS_MAX} pages are open already"})
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
        self._streams += 1
        try:
            await response.prepare(request)
            while True:
                await response.write(b"data: " + self._state + b"\n\n")
                async with self._ticked:
                    await self._ticked.wait()
        except (ConnectionResetError, asyncio.CancelledError):
            return response
        finally:
            self._streams -= 1

    async def _user(self, request: web.Request) -> web.Response:
        """One user: what their worker says, and their newest records. The id stands in the body, never in a log."""
        if self._token and not bearer_is(self._token, request.headers.get("Authorization")):
            return _json(401, {"error": "looking at a user needs the console's token (NUDGE_CONSOLE_TOKEN)"})
        if request.content_type != "application/json":  # what a form of a foreign page cannot send
            return _json(415, {"error": "the body is application/json"})
        try:
            user = msgspec.json.decode(await request.read(), type=_UserQuestion).user
        except msgspec.MsgspecError:
            return _json(400, {"error": 'the body is {"user": "…"}'})
        if not user:
            return _json(400, {"error": "which user?"})
        async with self._looking:
            return _json(200, await self._look(user))

    async def _look(self, user: str) -> dict[str, Any]:
        settings = self._settings
        asked = await ask_workers(settings.worker_endpoints(), settings.admin_token.get_secret_value(), user)
        answer = asked.answer
        problems = list(asked.problems.values()) if answer is None else []
        life = None
        try:
            partition = None if answer is None else answer["partition"]
            life = await read_life(settings.client_settings(), user, partition=partition, seconds_max=SCAN_S_MAX)
        except (KafkaError, OSError) as exc:
            problems.append(f"the topics cannot be read ({type(exc).__name__})")
        return {
            "found": answer is not None or bool(life and life.moments),
            "view": answer and answer["view"],
            "life": msgspec.to_builtins(life) if life else None,
            "shares": self._shares(life, answer["view"]["model"] if answer else DEFAULT_MODEL),
            "problems": problems,
        }

    def _shares(self, life: Life | None, model: str) -> dict[str, Any]:
        """What the scores of the decisions to send were made of, by the newest model; empty without one."""
        snapshot = self.tally.snapshot_of(model)
        if snapshot is None or life is None:
            return {}
        try:
            scorer = read_scorer(snapshot)
        except BadModel:
            return {}
        return {
            moment.id: msgspec.to_builtins(explain_score(moment.decision.features, scorer.explain_one))
            for moment in life.moments
            if moment.decision is not None and moment.decision.features
        }


def _is_local(host: str) -> bool:
    """Whether a Host header names the machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _json(status: int, body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
