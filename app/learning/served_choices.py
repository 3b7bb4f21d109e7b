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
    """Of a campaign: each variant's probability of being the best (if it is asked for), and those that were stopped."""

    best: dict[str, float]
    stopped: list[str]


class _Linear(msgspec.Struct):
    lower: list[list[float]]
    reward: list[float]


class _Arm(msgspec.Struct):
    linear: _Linear | None = None


class _State(msgspec.Struct):
    version: int
    served: dict[str, Served]
    campaigns: dict[str, dict[str, _Arm]] = {}
    hour_sends: list[int] = []
    hour_opens: list[int] = []


def full(lower: list[list[float]]) -> list[list[float]]:
    """The symmetric matrix of a lower triangle, whose row i has i + 1 entries."""
    size = len(lower)
    return [[lower[max(at, other)][min(at, other)] for other in range(size)] for at in range(size)]


def times(matrix: list[list[float]], x: list[float]) -> list[float]:
    """A matrix times a vector."""
    return [sum(entry * value for entry, value in zip(row, x, strict=True)) for row in matrix]


def read_choices(snapshot: ModelSnapshot) -> Choices:
    """The choices of a snapshot. Raises `BadModel`."""
    try:
        state = msgspec.json.decode(snapshot.state, type=_State)
    except msgspec.MsgspecError as exc:
        raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
    if state.version != VERSION:
        raise BadModel(f"snapshot {snapshot.model!r}: state {state.version}; this build reads {VERSION}")
    campaigns = {
        name: CampaignChoices(served.best, _linear(snapshot, state.campaigns.get(name, {})), frozenset(served.stopped))
        for name, served in state.served.items()
    }
    hours = FLAT
    if len(state.hour_sends) == len(state.hour_opens) == HOURS_PER_WEEK:
        hours = curve_of(state.hour_sends, state.hour_opens)
    return Choices(snapshot.version, campaigns, hours)


def _linear(snapshot: ModelSnapshot, arms: dict[str, _Arm]) -> dict[str, LinearArm]:
    found = {}
    for variant, arm in arms.items():
        if arm.linear is None:
            continue
        lower, reward = arm.linear.lower, arm.linear.reward
        if [len(row) for row in lower] != list(range(1, DIMENSIONS + 1)) or len(reward) != DIMENSIONS:
            raise BadModel(f"snapshot {snapshot.model!r}: a context of another size")
        inverse = full(lower)
        found[variant] = LinearArm(tuple(times(inverse, reward)), tuple(map(tuple, inverse)))
    return found
