"""Where a user can be reached: push tokens and web push subscriptions of their devices, the last used one last.

A device tells its address with what it does: ``context.device.token``, or in a browser ``context.device.subscription``,
the JSON form of a `PushSubscription` (https://www.w3.org/TR/push-api/). An address leaves the row when a provider says
that it is gone, when the app says so, or when the user has used `DEVICES_MAX` newer ones.
"""

from __future__ import annotations

from typing import Any, Final

from app.core.batch import Batch
from app.core.profile import Profile
from schemas.decisions import token_id
from schemas.events import Event

DEVICES_MAX: Final = 5
TOKEN_CHARS_MAX: Final = 2048
KEY_CHARS_MAX: Final = 128
"""A P-256 point takes 87 characters of base64url, the authentication secret 22."""

_TYPE, _SEEN = 0, 1  # a device is [type, seen_ms] or [type, seen_ms, p256dh, auth] under its token in the row


def fold_devices(profile: Profile, device: dict[str, Any], at_ms: int) -> None:
    """Note the address that the newest event of the user came from."""
    token, keys = device.get("token"), None
    if token is None and (subscription := device.get("subscription")).__class__ is dict:
        token, keys = subscription.get("endpoint"), subscription.get("keys") or {}
    if token.__class__ is not str or not 0 < len(token) <= TOKEN_CHARS_MAX:
        return
    known = profile.devices
    found = known.get(token)
    if found.__class__ is list and keys is None and found[_TYPE] == profile.device:
        found[_SEEN] = at_ms
        if next(reversed(known)) != token:
            known[token] = known.pop(token)
        return
    made = [profile.device, at_ms]
    if keys is not None:
        pair = _keys(keys)
        if not pair:
            return
        made = ["web", at_ms, *pair]
    known.pop(token, None)
    known[token] = made
    while len(known) > DEVICES_MAX:
        del known[next(iter(known))]


def _keys(keys: Any) -> list[str]:
    """The subscription's public key and authentication secret; nothing can be encrypted without them."""
    pair: list[Any] = [keys.get("p256dh"), keys.get("auth")] if keys.__class__ is dict else []
    return pair if all(key.__class__ is str and 0 < len(key) <= KEY_CHARS_MAX for key in pair) else []


def fold_token_removed(_batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Forget an address, named by ``token`` or ``tokenId``, unless the device was seen with it since."""
    wanted = event.properties.get("tokenId")
    token = event.properties.get("token")
    for known in list(profile.devices):
        if (known == token or token_id(known) == wanted) and _seen_ms(profile.devices[known]) <= at_ms:
            del profile.devices[known]


def _seen_ms(device: Any) -> int:
    return int(device[_SEEN]) if device.__class__ is list else 0


def tokens(profile: Profile) -> list[dict[str, Any]]:
    """The user's addresses as a decision carries them, the last used one first.

    Each has ``token`` and ``type`` (``ios``, ``android``, ``web``, or whatever the app calls its kind), and in a
    browser ``p256dh`` and ``auth``.
    """
    found = []
    for token, device in reversed(profile.devices.items()):
        if device.__class__ is list:
            found.append({"token": token, "type": device[_TYPE]})
            if len(device) > 2:
                found[-1] |= {"p256dh": device[2], "auth": device[3]}
    return found
