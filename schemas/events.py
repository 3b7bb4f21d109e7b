"""Events in: the Segment/RudderStack form, one JSON object a record, keyed by user.

`decode_event` never raises: bad input is a value (`Rejected`) that the worker writes to the dead-letter topic.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, final

import msgspec

EVENT_BYTES_MAX: Final = 1_000_000
NAME_CHARS_MAX: Final = 200
USER_CHARS_MAX: Final = 256

# Standard names that the engine itself understands. Any other name may be used in a policy without a modelling step.
NOTIFICATION_SENT: Final = "Notification Sent"
NOTIFICATION_OPENED: Final = "Notification Opened"
NOTIFICATION_CLICKED: Final = "Notification Clicked"
NOTIFICATION_DISMISSED: Final = "Notification Dismissed"
NOTIFICATION_FAILED: Final = "Notification Failed"
NOTIFICATIONS_ENABLED: Final = "Notifications Enabled"
NOTIFICATIONS_DISABLED: Final = "Notifications Disabled"
APPLICATION_OPENED: Final = "Application Opened"
PRODUCT_VIEWED: Final = "Product Viewed"
PRODUCT_ADDED: Final = "Product Added"
ORDER_COMPLETED: Final = "Order Completed"
DEVICE_TOKEN_REMOVED: Final = "Device Token Removed"  # noqa: S105 - a name, not a token

ERASE: Final = "erase"
MERGE: Final = "merge"
"""Asks for a row to be merged into another; only the engine writes it, signed. See `app.core.merge`."""
ABSORB: Final = "absorb"
"""A row that has been merged, on its way to the other; only the engine writes it, signed."""
"""The type of a control message: forget the user. Written by `nudge erase`, signed (`schemas.erasures`)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_NAIVE = datetime(1970, 1, 1)  # noqa: DTZ001 - subtracted from naive times, which are UTC by contract
_MS = timedelta(milliseconds=1)


class _Nothing(dict[str, Any]):
    """An empty object, one for all events that say none: of ``{}`` msgspec makes one for each."""


_NOTHING: Final = _Nothing()


class Event(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, gc=False):
    """One Segment-form message. Unknown fields are ignored; new fields must have defaults.

    Parameters
    ----------
    type
        ``track``, ``identify`` or ``alias``; ``erase`` is a control message (`schemas.erasures`).
    user_id, anonymous_id
        At least one is required; the record key must be ``user_id`` where it is present, else ``anonymous_id``.
    event
        The event's name, past tense ("Order Completed"). Required for ``track``.
    timestamp
        Event time: ISO 8601 (a time without an offset is UTC) or integer milliseconds since 1970.
        Without it the processing time counts.
    """

    type: str
    event: str = ""
    user_id: str | None = None
    anonymous_id: str | None = None
    message_id: str | None = None
    timestamp: datetime | int | None = None
    sent_at: datetime | int | None = None
    previous_id: str | None = None
    context: dict[str, Any] = _NOTHING
    properties: dict[str, Any] = {}
    traits: dict[str, Any] = _NOTHING


@final
class Rejected(msgspec.Struct, frozen=True):
    """Why a record was refused: a machine-readable `reason` (one of `REASONS`) and a `detail` without personal data."""

    reason: str
    detail: str


REASONS: Final = (
    "empty",
    "too_large",
    "malformed_json",
    "invalid_field",
    "unknown_type",
    "missing_user",
    "missing_event",
    "missing_key",
    "key_mismatch",
    "timestamp_in_future",
    "timestamp_too_old",
    "processing_failed",
    "merge_refused",
    "merge_loop",
    "erase_refused",
)

parse_event = msgspec.json.Decoder(Event).decode
"""JSON to `Event`, types checked and nothing else. Raises `msgspec.DecodeError`, `UnicodeDecodeError`,
`RecursionError`."""
_encoder = msgspec.json.Encoder()
TYPES: Final = frozenset({"track", "identify", "alias", ERASE, MERGE, ABSORB})


def epoch_ms(value: datetime | int) -> int:
    """Milliseconds since 1970 of an event's time; a naive datetime is UTC."""
    if isinstance(value, int):
        return value
    if value.tzinfo is None:
        return (value - _EPOCH_NAIVE) // _MS
    return (value - _EPOCH) // _MS


def decode_event(raw: bytes | None, key: bytes | None) -> Event | Rejected:
    """Decode and check one record of the `events` topic; times are checked by the caller, who has the clock."""
    if not raw:
        return Rejected("empty", "the record has no value")
    if len(raw) > EVENT_BYTES_MAX:
        return Rejected("too_large", f"{len(raw)} bytes; at most {EVENT_BYTES_MAX}")
    try:
        event = parse_event(raw)
    except msgspec.ValidationError as exc:
        return Rejected("invalid_field", str(exc))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return Rejected("malformed_json", str(exc))
    return check_event(event, key)


def check_event(event: Event, key: bytes | None) -> Event | Rejected:
    """Apply the rules that the struct's types cannot say."""
    if event.type not in TYPES:
        return Rejected("unknown_type", "type must be track, identify or alias")
    user = event.user_id or event.anonymous_id
    if not user:
        return Rejected("missing_user", "userId or anonymousId is required")
    if len(user) > USER_CHARS_MAX:
        return Rejected("invalid_field", f"userId has {len(user)} characters; at most {USER_CHARS_MAX}")
    if event.type == "track" and not event.event:
        return Rejected("missing_event", "a track message needs an event name")
    if len(event.event) > NAME_CHARS_MAX:
        return Rejected("invalid_field", f"event has {len(event.event)} characters; at most {NAME_CHARS_MAX}")
    if not key:
        return Rejected("missing_key", "the record key must be the user, or Kafka cannot order the user's events")
    if key != user.encode():
        return Rejected("key_mismatch", "the record key is not the message's user")
    return event


def encode_event(event: Event) -> bytes:
    """The JSON value of a record of the `events` topic."""
    return _encoder.encode(event)
