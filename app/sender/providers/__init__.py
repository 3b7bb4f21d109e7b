"""Providers by name. A new one is a module here and a line in `PROVIDERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.sender.providers.base import BadProvider, Provider
from app.sender.providers.console import ConsoleProvider, ConsoleSettings
from app.sender.providers.webhook import WebhookProvider, WebhookSettings


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """The settings of every provider; `webhook` may be left out when it is not used."""

    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    webhook: WebhookSettings | None = None


def _webhook(settings: ProviderSettings) -> Provider:
    if settings.webhook is None:
        raise BadProvider("webhook: needs a url and a secret")
    return WebhookProvider(settings.webhook)


PROVIDERS: Final[Mapping[str, Callable[[ProviderSettings], Provider]]] = {
    "console": lambda settings: ConsoleProvider(settings.console),
    "webhook": _webhook,
}


def build_provider(name: str, settings: ProviderSettings) -> Provider:
    """The provider called `name`. Raises `BadProvider`."""
    if name not in PROVIDERS:
        raise BadProvider(f"provider {name!r}: expected one of {', '.join(sorted(PROVIDERS))}")
    return PROVIDERS[name](settings)
