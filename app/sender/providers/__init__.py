"""Providers by name. A new one is a module here and a line in `PROVIDERS`.

The push services need libraries that the others do not: they are imported when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from app.sender.providers.base import BadProvider, Provider
from app.sender.providers.console import ConsoleProvider, ConsoleSettings
from app.sender.providers.webhook import WebhookProvider, WebhookSettings

if TYPE_CHECKING:
    from app.sender.providers.apns import ApnsSettings
    from app.sender.providers.fcm import FcmSettings
    from app.sender.providers.webpush import WebPushSettings

PROVIDER_OF: Final[Mapping[str, str]] = {"ios": "apns", "android": "fcm", "web": "webpush"}
"""A device's type to the provider that reaches it, where that one is in use."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """The settings of every provider; what is not used may be left out."""

    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    webhook: WebhookSettings | None = None
    fcm: FcmSettings | None = None
    apns: ApnsSettings | None = None
    webpush: WebPushSettings | None = None


def _webhook(settings: ProviderSettings) -> Provider:
    if settings.webhook is None:
        raise BadProvider("webhook: needs a url and a secret")
    return WebhookProvider(settings.webhook)


def _fcm(settings: ProviderSettings) -> Provider:
    from app.sender.providers.fcm import FcmProvider  # noqa: PLC0415

    return FcmProvider(_needed("fcm", settings.fcm, "credentials"))


def _apns(settings: ProviderSettings) -> Provider:
    from app.sender.providers.apns import ApnsProvider  # noqa: PLC0415

    return ApnsProvider(_needed("apns", settings.apns, "a key, its id, the team's id and a topic"))


def _webpush(settings: ProviderSettings) -> Provider:
    from app.sender.providers.webpush import WebPushProvider  # noqa: PLC0415

    return WebPushProvider(_needed("webpush", settings.webpush, "a key and a subject"))


def _needed(name: str, settings: Any, what: str) -> Any:
    if settings is None:
        raise BadProvider(f"{name}: needs {what}")
    return settings


PROVIDERS: Final[Mapping[str, Callable[[ProviderSettings], Provider]]] = {
    "console": lambda settings: ConsoleProvider(settings.console),
    "webhook": _webhook,
    "fcm": _fcm,
    "apns": _apns,
    "webpush": _webpush,
}


def build_provider(name: str, settings: ProviderSettings) -> Provider:
    """The provider called `name`. Raises `BadProvider`."""
    if name not in PROVIDERS:
        raise BadProvider(f"provider {name!r}: expected one of {', '.join(sorted(PROVIDERS))}")
    return PROVIDERS[name](settings)
