"""Outcomes: matured training examples, keyed by model, read by the learner that owns the key."""

from __future__ import annotations

import math
from typing import Annotated, Final

import msgspec

from schemas.decoding import json_decoder, json_reader

LATE_OPT_OUT: Final = -1
LATE_OPEN: Final = -2
NO_EXAMPLE: Final = LATE_OPT_OUT
"""Of a record with `items`: builds that do not know these take it for an opt-out of no campaign, and skip it."""

OUTCOME_BYTES_MAX: Final = 65_536
"""Several times what the longest basket takes."""

# What a worker never exceeds. A model learns for years from what it is told once, and its snapshot must fit a message:
# so what is beyond has been forged or damaged, and is refused whole.
_Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,63}$")]
_NameOrNone = Annotated[str, msgspec.Meta(pattern="^([a-z][a-z0-9_]{0,63})?$")]
_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Ms = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Features = Annotated[dict[_Text, float], msgspec.Meta(max_length=256)]


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

    id: _Text
    model: _Name
    label: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)]
    features: _Features
    score: _Share
    model_version: _Count
    campaign: _NameOrNone
    decided_ms: _Ms
    matured_ms: _Ms
    variant: _NameOrNone = ""
    propensity: _Share = 1.0
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    clicked: _Count = 0
    opted_out: _Count = 0
    chooser: _NameOrNone = ""
    opt_out_limit: _Share = 0.0
    hour: Annotated[int, msgspec.Meta(ge=-1, lt=168)] = -1
    items: Annotated[list[Annotated[list[_Text], msgspec.Meta(max_length=8)]], msgspec.Meta(max_length=100)] = []
    reward: _Text = ""
    gain: Annotated[float, msgspec.Meta(ge=-1000, le=1)] | None = None
    penalty: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    persona: Annotated[int, msgspec.Meta(ge=-1, le=2**31)] = -1
    segments: Annotated[list[_Name], msgspec.Meta(max_length=100)] = []


_encoder = msgspec.json.Encoder()
_decode = json_decoder(Outcome)

read_outcome = json_reader(Outcome, OUTCOME_BYTES_MAX)
"""The outcome of a record's value, or why it is none (`Rejected`, without any of its contents); never raises."""


def encode_outcome(outcome: Outcome) -> bytes:
    """The JSON value of a record of the `outcomes` topic.

    A feature that is not finite is left out: it counts as missing, and JSON does not know it.
    """
    if not math.isfinite(sum(outcome.features.values())):
        finite = {name: value for name, value in outcome.features.items() if math.isfinite(value)}
        outcome = msgspec.structs.replace(outcome, features=finite)
    return _encoder.encode(outcome)


def decode_outcome(raw: bytes) -> Outcome:
    """Raises `msgspec.MsgspecError` when the value is not an outcome."""
    return _decode(raw)
