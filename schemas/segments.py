"""Membership changes: one record each time a user enters or leaves a segment, keyed by user."""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.decoding import json_decoder


class MembershipChange(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """`cause` is ``event``, ``clock``, for a new policy version ``policy`` (the user's next event came first) or
    ``backfill``, ``merge`` after two rows became one, or ``percentile`` when a threshold followed other users; `reason`
    names the clause or event that decided. `id` is deterministic.
    """

    id: str
    user: str
    segment: str
    change: Literal["enter", "leave"]
    at_ms: int
    cause: Literal["event", "clock", "policy", "backfill", "merge", "percentile"]
    reason: str = ""
    policy_version: str = ""


_encoder = msgspec.json.Encoder()
_decode = json_decoder(MembershipChange)


def encode_membership(change: MembershipChange) -> bytes:
    """The JSON value of a record of the `segments` topic."""
    return _encoder.encode(change)


def decode_membership(raw: bytes) -> MembershipChange:
    """Raises `msgspec.MsgspecError` when the value is not a membership change."""
    return _decode(raw)
