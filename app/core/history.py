"""Windows folded from a user's history: what a row would hold had the policy always asked for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from app.core.panes import Panes
from app.core.plan import EventPlan, Plan


@dataclass(slots=True)
class Windows:
    """Totals of some users.

    Parameters
    ----------
    covers
        Ids of the features that were folded.
    next_offset
        The first source offset that was not.
    by_key
        By user, by feature id; a feature without events is left out.
    """

    covers: frozenset[int] = frozenset()
    next_offset: int = 0
    by_key: Mapping[bytes, Mapping[int, Panes]] = field(default_factory=dict)

    def of(self, key: bytes) -> Mapping[int, Panes]:
        """One user's."""
        return self.by_key.get(key, _NONE)


_NONE: Final[Mapping[int, Panes]] = {}


def windows_only(plan: Plan, covers: frozenset[int]) -> Plan:
    """The plan that folds these features and decides nothing, so that history is read by the rules of the present."""
    events = {name: _windows_of(part, covers) for name, part in plan.events.items()}
    return replace(
        plan,
        segments=(),
        campaigns=(),
        features=tuple(feature for feature in plan.features if feature.id in covers),
        events=events,
        other=_windows_of(plan.other, covers),
        on_traits=EventPlan(),
        segment_by_id={},
        campaign_by_id={},
        on_segment={},
    )


def _windows_of(part: EventPlan, covers: frozenset[int]) -> EventPlan:
    return EventPlan(features=tuple(feature for feature in part.features if feature.id in covers))
