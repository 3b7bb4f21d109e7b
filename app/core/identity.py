"""Who the user is: traits, aliases, device, time zone, consent.

Newest event time wins. A refusal is the exception that may only win: at equal times, and against a back-dated consent.
"""

from __future__ import annotations

from typing import Any, Final

from app.core.batch import Batch
from app.core.devices import fold_devices
from app.core.locales import LOCALE_CHARS_MAX, tag_of
from app.core.profile import Profile
from app.core.traits import fold_traits
from app.core.values import NAME_CHARS_MAX
from schemas.events import Event

ALIASES_MAX: Final = 16
CATEGORIES_MAX: Final = 64
CONSENT_TRAITS: Final = ("push_consent", "pushConsent")
"""Boolean traits that an identify may carry consent in."""


def fold_context(profile: Profile, context: dict[str, Any], at_ms: int) -> None:
    """Time zone, language, device and address of an event that is the newest so far."""
    timezone = context.get("timezone")
    if timezone is not None and timezone != profile.timezone:
        _set_timezone(profile, timezone)
    locale = context.get("locale")
    if locale.__class__ is str and len(locale) <= LOCALE_CHARS_MAX and (tag := tag_of(locale)):
        profile.locale = tag
    device = context.get("device")
    if device.__class__ is dict:
        _fold_device(profile, device)
        if "token" in device or "subscription" in device:
            fold_devices(profile, device, at_ms)


def _set_timezone(profile: Profile, timezone: object) -> None:
    if isinstance(timezone, str) and 0 < len(timezone) <= NAME_CHARS_MAX:
        profile.timezone = timezone


def _fold_device(profile: Profile, device: dict[str, Any]) -> None:
    kind = device.get("type")
    if kind.__class__ is str and kind != profile.device and 0 < len(kind) <= NAME_CHARS_MAX:
        profile.device = kind


def fold_identify(profile: Profile, event: Event, at_ms: int) -> None:
    """Traits, each by the newest word on it; None removes a trait. Consent, and another id, where they stand in it."""
    if fold_traits(profile, event.traits, at_ms):
        _set_timezone(profile, event.traits["timezone"])
    for name in CONSENT_TRAITS:
        if event.traits.get(name).__class__ is bool:
            _set_consent(profile, bool(event.traits[name]), at_ms)
    if event.user_id and event.anonymous_id and event.user_id != event.anonymous_id:
        _add_alias(profile, event.anonymous_id)


def fold_alias(profile: Profile, event: Event) -> None:
    """Remember under which id the user was known before, the newest `ALIASES_MAX`."""
    if event.previous_id:
        _add_alias(profile, event.previous_id)


def _add_alias(profile: Profile, alias: str) -> None:
    if len(alias) <= NAME_CHARS_MAX * 4 and alias not in profile.aliases:
        profile.aliases = [*profile.aliases, alias][-ALIASES_MAX:]


def fold_enabled(_batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Consent given, to all or to one category."""
    _fold_consent(profile, event, given=True, at_ms=at_ms)


def fold_disabled(_batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Consent withdrawn, from all or from one category."""
    _fold_consent(profile, event, given=False, at_ms=at_ms)


def _fold_consent(profile: Profile, event: Event, *, given: bool, at_ms: int) -> None:
    category = event.properties.get("category")
    if category is None or category == "":
        _set_consent(profile, given, at_ms)
    elif isinstance(category, str) and len(category) <= NAME_CHARS_MAX:
        _set_category(profile, category, given=given, at_ms=at_ms)
    elif not given:
        _set_consent(profile, False, at_ms)  # a refusal that we cannot read refuses everything


def _set_consent(profile: Profile, given: bool, at_ms: int) -> None:
    if at_ms > profile.consent_ms or (at_ms == profile.consent_ms and not given):
        profile.consent = 1 if given else 0
        profile.consent_ms = at_ms


def _set_category(profile: Profile, category: str, *, given: bool, at_ms: int) -> None:
    times = profile.category_consent
    known_ms = times.get(category, 0)
    if at_ms < known_ms or (at_ms == known_ms and given):
        return
    if category not in times and len(times) >= CATEGORIES_MAX:
        if not given:
            _set_consent(profile, False, at_ms)  # more refusals than a row keeps: refuse everything
        return
    times[category] = at_ms
    out = [name for name in profile.opted_out if name != category]
    profile.opted_out = out if given else [*out, category]
