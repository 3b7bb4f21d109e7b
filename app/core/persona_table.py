"""The personas as the learner publishes them and a worker uses them: plain numbers, immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

STAY: Final = 1.15
"""A user stays with their persona until the squared distance to it exceeds that to another by this factor: whoever
stands between two must not change every day."""


@dataclass(frozen=True, slots=True)
class Persona:
    """One persona: its number (never used again for another), its name, and its centroid by scaled column."""

    id: int
    name: str
    centroid: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PersonaTable:
    """A snapshot of personas. Version 0 knows none.

    Parameters
    ----------
    columns
        Name of a number of the vector to its column and scale.
    share
        Of the users, how many teach.
    usual
        By column, scaled, what a vector that lacks it is taken to have; 0 when empty.

    Examples
    --------
    >>> table = PersonaTable(1, {"a": (0, 2.0)}, (Persona(1, "low", (0.0,)), Persona(2, "high", (4.0,))))
    >>> [table.nearest({"a": value}).name for value in (0.9, 1.1)]
    ['low', 'high']
    >>> table.nearest({"a": 1.1 / 1.1}, stay_with=1).name
    'low'
    """

    version: int = 0
    columns: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    personas: tuple[Persona, ...] = ()
    share: float = 1.0
    usual: tuple[float, ...] = ()

    def distances(self, x: Mapping[str, float]) -> list[float]:
        """The squared distance to each persona. What the vector has and the table has not counts for nothing."""
        point = list(self.usual) or [0.0] * len(self.columns)
        for name, value in x.items():
            if (found := self.columns.get(name)) is not None:
                point[found[0]] = value * found[1]
        return [sum([(a - b) ** 2 for a, b in zip(point, persona.centroid, strict=True)]) for persona in self.personas]

    def nearest(self, x: Mapping[str, float], stay_with: int = 0) -> Persona | None:
        """The persona of a vector, or the present one (by number) while that is nearly as near; None without any."""
        if not self.personas:
            return None
        distances = self.distances(x)
        best = min(range(len(distances)), key=distances.__getitem__)
        for at, persona in enumerate(self.personas):
            if persona.id == stay_with and distances[at] <= distances[best] * STAY:
                return persona
        return self.personas[best]


NO_PERSONAS: Final = PersonaTable()
