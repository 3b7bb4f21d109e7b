"""The state of a snapshot of personas, and what a worker and the command line read of it."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from app.core.persona_table import Persona, PersonaTable
from app.learning.contract import BadModel
from schemas.models import ModelSnapshot

SUFFIX: Final = ".personas"
"""Of the key under which a model's snapshot of personas stands on the `models` topic."""
VERSION: Final = 1
COLUMNS_MAX: Final = 64


def personas_name(model: str) -> str:
    """The key of a model's personas."""
    return model + SUFFIX


def is_personas(name: str) -> bool:
    """Whether a key of the topic is that of personas; not of a version that is kept, or of a pin."""
    return name.endswith(SUFFIX)


class Known(msgspec.Struct):
    """One persona.

    Parameters
    ----------
    centroid, named
        In the vector's own units, by column: now, and when it was named.
    share
        Of the active users; `share_born` likewise when it was found.
    settled, settles_ms
        Whether its name stays, and from when on.
    within
        Root mean squared scaled distance of its users to the centroid.
    """

    id: int
    name: str
    born_ms: int
    centroid: list[float]
    named: list[float]
    share: float = 0.0
    share_born: float = 0.0
    within: float = 0.0
    settled: bool = False
    settles_ms: int = 0


class Change(msgspec.Struct, frozen=True):
    """A persona was found (`born`), `renamed`, or is told apart no longer (`ended`): `into` has most of its users."""

    at_ms: int
    kind: str
    id: int
    name: str
    into: int = 0


class Served(msgspec.Struct):
    """What there is to know of the personas.

    Parameters
    ----------
    columns, scales, population, usual
        By column: its name, its scale, the mean of all users, and what a vector that lacks it is taken to have.
    users
        Active users a day, by the vectors of the last whole day.
    silhouettes
        By number of personas, how well so many would tell users apart; -1 to 1.
    moved
        Share of users whom the last change gave another persona.
    retired
        Names that ended personas had; none of these is given again for long.
    """

    version: int = VERSION
    columns: list[str] = []
    scales: list[float] = []
    population: list[float] = []
    usual: list[float] = []
    personas: list[Known] = []
    share: float = 1.0
    users: float = 0.0
    silhouette: float = 0.0
    silhouettes: dict[int, float] = {}
    moved: float = 0.0
    changes: list[Change] = []
    retired: list[str] = []


class ServedState(msgspec.Struct):
    """The part of a snapshot's state that is not the learner's alone."""

    served: Served


def read_served(snapshot: ModelSnapshot) -> Served:
    """What a snapshot of personas says. Raises `BadModel`."""
    try:
        served = msgspec.json.decode(snapshot.state, type=ServedState).served
    except msgspec.MsgspecError as exc:
        raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
    check(served, snapshot.model)
    return served


def check(served: Served, name: str) -> None:
    """Raises `BadModel` when the numbers do not fit each other."""
    if served.version != VERSION:
        raise BadModel(f"snapshot {name!r}: state {served.version}; this build reads {VERSION}")
    width = len(served.columns)
    rows = [
        served.scales,
        served.population,
        served.usual,
        *(row for one in served.personas for row in (one.centroid, one.named)),
    ]
    if width > COLUMNS_MAX or any(len(row) != width or not all(map(math.isfinite, row)) for row in rows):
        raise BadModel(f"snapshot {name!r}: numbers that do not fit its {width} columns")


def read_personas(snapshot: ModelSnapshot) -> PersonaTable:
    """The table of a snapshot. Raises `BadModel`."""
    served = read_served(snapshot)
    scales = served.scales
    return PersonaTable(
        version=snapshot.version,
        columns={name: (at, scales[at]) for at, name in enumerate(served.columns)},
        usual=tuple(value * scale for value, scale in zip(served.usual, scales, strict=True)),
        personas=tuple(
            Persona(one.id, one.name, tuple(value * scale for value, scale in zip(one.centroid, scales, strict=True)))
            for one in served.personas
        ),
        share=served.share,
    )
