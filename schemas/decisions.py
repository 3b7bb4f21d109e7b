"""Decisions out: JSON value, CloudEvents 1.0 binary-mode headers, keyed by user.

A decision not to send is a decision too: `action` is ``suppress`` and `reason` says why.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

import msgspec

from schemas.decoding import json_decoder

DECISION_TYPE: Final = "dev.nudge.decision.v1"
SHADOW_TYPE: Final = "dev.nudge.decision.shadow.v1"
SUPPRESSED_TYPE: Final = "dev.nudge.decision.suppressed.v1"
ERASED_TYPE: Final = "dev.nudge.decision.erased.v1"
SOURCE: Final = "/nudge/worker"

Headers = list[tuple[str, bytes]]

ERASED: Final = "erased"
"""The reason of a decision that names no campaign: the user is erased, and nothing decided before may be sent."""

# Machine-readable reasons of a suppressed candidate, in the order in which the gates are asked.
SUPPRESS_REASONS: Final = (
    "expired",
    "consent",
    "category_opt_out",
    "quiet_hours",
    "holdout",
    "frequency_cap",
    "adaptive_cap",
    "cool_down",
    "no_variant",
    "campaign_holdout",
    "outranked",
)


class Content(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """What the person would read."""

    title: str
    body: str
    deep_link: str = ""
    data: dict[str, str] = {}


class Decision(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """One decision of the arbiter about one candidate.

    `propensity` is the probability with which this variant was chosen at decision time (of a user held out of the
    campaign: the share held out); `chooser` says by what, empty for fixed weights, and `choice_version` by which
    snapshot of what was learned about variants; `slot_propensity` is that of the hour it was sent in.
    `open_probability` is the model's estimate. `shadow` is that of a policy on trial: it must not be sent. `token`
    is the address of the device that the user used last, `more_tokens` those of the other devices, the last used
    one first. `items` are the products that the template was given, as a slot chose them: the id, and from where
    (``viewed``, ``also_bought``, ``popular``, ``popular in`` a segment or category). Times are milliseconds since
    1970 in event time.
    """

    id: str
    user: str
    action: Literal["send", "suppress"]
    campaign: str
    category: str
    decided_ms: int
    reason: str = ""
    variant: str = ""
    propensity: float = 1.0
    trigger: str = ""
    trigger_key: str = ""
    transactional: bool = False
    content: Content | None = None
    expires_ms: int = 0
    open_probability: float = 0.0
    value: float = 0.0
    model_version: int = 0
    policy_version: str = ""
    source_ms: int = 0
    source_offset: int = -1
    features: dict[str, float] = {}
    token: dict[str, Any] = {}
    more_tokens: list[dict[str, Any]] = []
    chooser: str = ""
    choice_version: int = 0
    slot_propensity: float = 1.0
    shadow: bool = False
    items: list[list[str]] = []


_CLOUD_EVENT, _FROM = ("ce_specversion", b"1.0"), ("ce_source", SOURCE.encode())
_JSON = ("content-type", b"application/json")
_encoder = msgspec.json.Encoder()
_decode = json_decoder(Decision)


def token_id(token: str) -> str:
    """A name for a device's address by which it cannot be reached: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def encode_decision(decision: Decision) -> bytes:
    """The JSON value of a record of the `decisions` topic."""
    return _encoder.encode(decision)


def decode_decision(raw: bytes) -> Decision:
    """Raises `msgspec.MsgspecError` when the value is not a decision."""
    return _decode(raw)


def decision_headers(decision: Decision, traceparent: bytes | None = None) -> Headers:
    """CloudEvents binary-mode attributes. `ce_source` and the rest hold no personal data; the user is in the key."""
    headers = [
        _CLOUD_EVENT,
        ("ce_id", decision.id.encode()),
        ("ce_type", _type_of(decision).encode()),
        _FROM,
        _JSON,
    ]
    if traceparent:
        headers.append(("traceparent", traceparent))
    return headers


def _type_of(decision: Decision) -> str:
    if decision.shadow:
        return SHADOW_TYPE
    if decision.action == "send":
        return DECISION_TYPE
    return ERASED_TYPE if decision.reason == ERASED else SUPPRESSED_TYPE
