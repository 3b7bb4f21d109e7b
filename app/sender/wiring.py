"""From settings to providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.sender.providers import ProviderSettings, build_provider
from app.sender.providers.addresses import AddressRule
from app.sender.providers.base import BadProvider, Provider
from app.sender.providers.console import ConsoleSettings
from app.sender.providers.webhook import WebhookSettings
from app.settings import Settings

if TYPE_CHECKING:
    from app.sender.providers.apns import ApnsSettings
    from app.sender.providers.fcm import FcmSettings
    from app.sender.providers.webpush import WebPushSettings


def build_providers(settings: Settings) -> dict[str, Provider]:
    """The providers that `settings` names, in its order.

    Raises
    ------
    BadProvider
        If one cannot be used; the text says why.
    """
    names = settings.sender_providers()
    try:
        found = ProviderSettings(
            console=ConsoleSettings(path=str(settings.sender_output or "")),
            webhook=_webhook(settings) if "webhook" in names else None,
            fcm=_fcm(settings) if "fcm" in names else None,
            apns=_apns(settings) if "apns" in names else None,
            webpush=_webpush(settings) if "webpush" in names else None,
        )
    except ModuleNotFoundError as exc:
        raise BadProvider(f"they need more packages: pip install '.[push]', in the repository ({exc.name})") from exc
    return {name: build_provider(name, found) for name in names}


def _webhook(settings: Settings) -> WebhookSettings:
    rule = AddressRule(loopback=settings.profile == "dev", private=settings.webhook_private)
    secret = settings.webhook_secret.get_secret_value().encode()
    return WebhookSettings(url=settings.webhook_url, secret=secret, addresses=rule)


def _fcm(settings: Settings) -> FcmSettings:
    from app.sender.providers.fcm import FcmSettings  # noqa: PLC0415 - needs the packages of the extra "push"
    from app.sender.providers.http2 import Http2Settings  # noqa: PLC0415

    assert settings.fcm_credentials is not None, "checked with the settings"
    return FcmSettings(
        credentials=settings.fcm_credentials,
        url=settings.fcm_url,
        token_url=settings.fcm_token_url,
        http=Http2Settings(timeout_s=settings.push_timeout_s, ca_file=settings.push_ca_file),
        now_ms=settings.make_clock().now_ms,
    )


def _apns(settings: Settings) -> ApnsSettings:
    from app.sender.providers.apns import ApnsSettings  # noqa: PLC0415
    from app.sender.providers.http2 import Http2Settings  # noqa: PLC0415

    assert settings.apns_key is not None, "checked with the settings"
    return ApnsSettings(
        key=settings.apns_key,
        key_id=settings.apns_key_id,
        team_id=settings.apns_team_id,
        topic=settings.apns_topic,
        url=settings.apns_url,
        http=Http2Settings(timeout_s=settings.push_timeout_s, ca_file=settings.push_ca_file),
        now_ms=settings.make_clock().now_ms,
    )


def _webpush(settings: Settings) -> WebPushSettings:
    from app.sender.providers.http2 import Http2Settings  # noqa: PLC0415
    from app.sender.providers.webpush import WebPushSettings  # noqa: PLC0415

    assert settings.webpush_key is not None, "checked with the settings"
    return WebPushSettings(
        key=settings.webpush_key,
        subject=settings.webpush_subject,
        addresses=AddressRule(loopback=settings.profile == "dev"),
        http=Http2Settings(timeout_s=settings.push_timeout_s, ca_file=settings.push_ca_file),
        now_ms=settings.make_clock().now_ms,
    )
