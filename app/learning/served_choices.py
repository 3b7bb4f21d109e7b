"""What a worker reads of a snapshot of choices."""

from __future__ import annotations

from typing import Final

import msgspec

from app.core.choices import DIMENSIONS, CampaignChoices, Choices, LinearArm
from app.core.profile import HOURS_PER_WEEK
from app.core.send_time import FLAT, curve_of
from app.learning.contract import BadModel
from schemas.models import ModelSnapshot

SUFFIX: Final = ".choices"
"""Of the key under which a model's snapshot of choices stands on the `models` topic."""
VERSION: Final = 1


class Served(msgspec.Struct):
    """Of a campaign: probabilities of being the best, LinUCB's parts, and the variants that were stopped."""

    best: dict[str, float]
    theta: dict[str, list[float]]
    inverse: dict[str, list[list[float]]]
    stopped: list[str]


class _State(msgspec.Struct):
    version: int
    served: dict[str, Served]
    hour_sends: list[int] = []
    hour_opens: list[int] = []


def read_choices(snapshot: ModelSnapshot) -> Choices:
    """The choices of a snapshot. Raises `BadModel`."""
    try:
        state = msgspec.json.decode(snapshot.state, type=_State)
    except msgspec.MsgspecError as exc:
        raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
    if state.version != VERSION:
        raise BadModel(f"snapshot {snapshot.model!r}: state {state.version}; this build reads {VERSION}")
    campaigns = {name: _campaign(snapshot, served) for name, served in state.served.items()}
    hours = FLAT
    if len(state.hour_sends) == len(state.hour_opens) == HOURS_PER_WEEK:
        hours = curve_of(state.hour_sends, state.hour_opens)
    return Choices(snapshot.version, campaigns, hours)


def _campaign(snapshot: ModelSnapshot, served: Served) -> CampaignChoices:
    linear = {}
    for variant, theta in served.theta.items():
        rows = served.inverse.get(variant, [])
        if len(theta) != DIMENSIONS or len(rows) != DIMENSIONS or any(len(row) != DIMENSIONS for row in rows):
            raise BadModel(f"snapshot {snapshot.model!r}: a context of another size")
        linear[variant] = LinearArm(tuple(theta), tuple(tuple(row) for row in rows))
    return CampaignChoices(served.best, linear, frozenset(served.stopped))
