"""What the modules of the command line share: where they write, how they read settings, how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from app.logs import configure_logs
from app.settings import ConfigurationError, Settings, load_settings

out = Console()
err = Console(stderr=True, soft_wrap=True)  # a path that is broken in two cannot be copied

Broker = Annotated[str | None, typer.Option("--broker", help="Bootstrap servers (NUDGE_BROKER).")]


def fail(message: object, code: int = 2) -> typer.Exit:
    """Say what is wrong; the result is to be raised."""
    err.print("[bold red]nudge:[/]", end=" ")
    err.print(str(message), highlight=False, markup=False)
    return typer.Exit(code)


def no_broker(settings: Settings, exc: Exception) -> typer.Exit:
    """Say that nobody answers there; the result is to be raised."""
    return fail(f"no Kafka broker answers at {settings.broker} (NUDGE_BROKER): {type(exc).__name__}", 1)


def read_settings(**overrides: Any) -> Settings:
    """The settings with the options that were given; ends the command when they cannot be used."""
    try:
        settings = load_settings(**{name: value for name, value in overrides.items() if value is not None})
    except ConfigurationError as exc:
        err.print("[bold red]nudge: the configuration cannot be used[/]")
        err.print(str(exc), markup=False, highlight=False)
        raise typer.Exit(2) from None
    configure_logs(settings.log_format, settings.log_level)
    return settings


def kafka_call(settings: Settings, call: Callable[[dict[str, Any]], Awaitable[Any]]) -> Any:
    """Run `call(security)`; ends the command when the broker does not answer or refuses."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - `nudge --help` must not load Kafka clients

    from app.topics import TopicRefused  # noqa: PLC0415

    security = settings.client_settings()
    del security["bootstrap_servers"]

    async def run() -> Any:
        return await call(security)

    try:
        return asyncio.run(run())
    except TopicRefused as exc:
        raise fail(exc, 1) from None
    except (KafkaError, OSError) as exc:
        raise no_broker(settings, exc) from None
