"""`nudge console`: the web page, until it is asked to end."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer

from app.cli_common import Broker, fail, out, read_settings
from app.settings import Settings


def console(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (NUDGE_CONSOLE_HOST).")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 0 takes a free one (NUDGE_CONSOLE_PORT).")] = None,
    worker: Annotated[
        list[str] | None, typer.Option("--worker", help="HTTP endpoint of a process; repeat it (NUDGE_WORKER_URLS).")
    ] = None,
    broker: Broker = None,
) -> None:
    """Serve a web page that shows the engine at work: flow, segments, decisions, models, experiments, one user."""
    settings = read_settings(
        console_host=host, console_port=port, broker=broker, worker_urls=",".join(worker) if worker else None
    )
    try:
        asyncio.run(_serve(settings))
    except OSError as exc:
        where = f"{settings.console_host}:{settings.console_port}"
        raise fail(f"the console cannot listen on {where}: {exc.strerror}", 1) from None


async def _serve(settings: Settings) -> None:
    from app.console.server import ConsoleServer  # noqa: PLC0415 - `nudge --help` must not load Kafka clients

    server = ConsoleServer(settings)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await server.start()
    out.print(f"console: {server.url}", highlight=False)
    try:
        await ended.wait()
    finally:
        await server.stop()
