"""The process's own HTTP endpoint: /livez, /readyz and /metrics, on loopback unless told otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Checks = Callable[[], Mapping[str, str]]


class HealthServer:
    """Serves liveness, readiness and metrics.

    Parameters
    ----------
    problems
        Gives what keeps the process from being ready, by check name; empty when it is ready.
    before_scrape
        Called before metrics are rendered, to set gauges that are read rather than counted.
    routes
        What else is served on the port, such as `app.admin`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        problems: Checks,
        before_scrape: Callable[[], None] = lambda: None,
        routes: Sequence[web.RouteDef] = (),
    ) -> None:
        self._host, self._port = host, port
        self._registry = registry
        self._problems = problems
        self._before_scrape = before_scrape
        self._routes = routes
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises `OSError` when the port is taken."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_routes(self._routes)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        assert site._server is not None
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _livez(self, _request: web.Request) -> web.Response:
        # Answering at all is the proof: the event loop turns. A lost broker must not get the process killed.
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = dict(self._problems())
        body = {"status": "unready" if problems else "ready", "problems": problems}
        return web.Response(text=json.dumps(body), status=503 if problems else 200, content_type="application/json")

    async def _metrics(self, _request: web.Request) -> web.Response:
        self._before_scrape()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
