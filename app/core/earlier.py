"""What earlier versions of the policy asked for, so that a row of one of them can be brought to the present one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.core.ids import stable_id


@dataclass(frozen=True, slots=True)
class Earlier:
    """Windowed totals of each earlier version, by its policy id; names of the segments of all of them, by their id."""

    features: Mapping[int, frozenset[int]] = field(default_factory=dict)
    segments: Mapping[int, str] = field(default_factory=dict)

    def with_version(self, version: str, features: Iterable[str], segments: Iterable[str]) -> Earlier:
        """These and one version more, of which the texts are given."""
        asked = frozenset(stable_id(text) for text in features)
        names = {stable_id(name): name for name in segments}
        return Earlier({**self.features, stable_id(version): asked}, {**self.segments, **names})


NOTHING: Final = Earlier()
