"""Outcomes: matured training examples, keyed by model, read by the learner that owns the key."""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.decoding import json_decoder

LATE_OPT_OUT: Final = -1
LATE_OPEN: Final = -2
NO_EXAMPLE: Final = LATE_OPT_OUT
"""Of a record with `items`: builds that do not know these take it for an opt-out of no campaign, and skip it."""


class Outcome(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """What was known at decision time (`features`, `score`) and what came of it (`label`).

    `label` is 1 when the notification was opened within the horizon, 0 when the horizon passed without an open, and
    `LATE_OPT_OUT` in a record that is no example: it says that the user opted out, or clicked, after the example had
    gone out.
    `LATE_OPEN` takes an example with label 0 back, of the same id: it was opened after all, after the horizon.
    `score` is the probability that the serving model gave at decision time, so metrics on it are progressive.
    `clicked` and `opted_out` are 1 when that happened before the record went out; `chooser`, `opt_out_limit` and
    `reward` (what its choice of variants learns from, empty for the open) are the campaign's; `hour` is the local hour
    of the week of the sending, 0 (Monday 00:00) to 167.

    A record with a `gain` is no example: it says what the decision brought, in [-`penalty`, 1], when the window of its
    reward had passed.

    A record with `items` is no example either: it is a basket, products that were bought together, each as id, category
    and name; `features` then says in which hash bucket the user is, and `segments` in which segments, of those that
    recommendations ask for.

    Nor is one whose `persona` is not -1: `features` is the vector of a user at a look (`app.core.persona_vector`), and
    `persona` the number of the persona that the worker found nearest, 0 when there were none yet.
    """

    id: str
    model: str
    label: int
    features: dict[str, float]
    score: float
    model_version: int
    campaign: str
    decided_ms: int
    matured_ms: int
    variant: str = ""
    propensity: float = 1.0
    weight: float = 1.0
    clicked: int = 0
    opted_out: int = 0
    chooser: str = ""
    opt_out_limit: float = 0.0
    hour: int = -1
    items: list[list[str]] = []
    reward: str = ""
    gain: float | None = None
    penalty: float = 0.0
    persona: int = -1
    segments: list[str] = []


_encoder = msgspec.json.Encoder()
_decode = json_decoder(Outcome)


def encode_outcome(outcome: Outcome) -> bytes:
    """The JSON value of a record of the `outcomes` topic."""
    return _encoder.encode(outcome)


def decode_outcome(raw: bytes) -> Outcome:
    """Raises `msgspec.MsgspecError` when the value is not an outcome."""
    return _decode(raw)
