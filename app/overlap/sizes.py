"""How large segments were: from how large they are now, back through who entered and left since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.core.plan import Plan
from schemas.segments import MembershipChange

IDS_MAX: Final = 100_000
"""Ids that are remembered: after a crash the newest changes are on the topic twice."""
_BARS: Final = "▁▂▃▄▅▆▇█"


class SizeHistory(msgspec.Struct, frozen=True):
    """A segment's users at the end of each step, oldest first; the last is now. `users_min` 0 is none."""

    segment: str
    users_min: int
    users: list[int]

    @property
    def too_small(self) -> bool:
        """Whether it has fewer users now than it should."""
        return self.users[-1] < self.users_min


class Changes:
    """Users entering less users leaving, by segment and step of time.

    Parameters
    ----------
    until_ms, step_ms, steps
        The newest instant, and how far it goes back; what is older is passed by.
    """

    def __init__(self, until_ms: int, step_ms: int, steps: int) -> None:
        self._until_ms = until_ms
        self._step_ms = step_ms
        self._steps = steps
        self._net: Counter[tuple[str, int]] = Counter()
        self._ids: dict[str, None] = {}

    def take(self, change: MembershipChange) -> None:
        """One record; a second one of the same id is the same change."""
        back = (self._until_ms - change.at_ms) // self._step_ms
        if back >= self._steps or change.id in self._ids:
            return
        self._ids[change.id] = None
        if len(self._ids) > IDS_MAX:
            del self._ids[next(iter(self._ids))]
        self._net[change.segment, max(back, 0)] += 1 if change.change == "enter" else -1

    def history(self, plan: Plan, now: Mapping[str, int]) -> list[SizeHistory]:
        """Every segment of the policy, the largest first, from its size now."""
        found = []
        for segment in plan.segments:
            users = [now.get(segment.name, 0)]
            for back in range(self._steps):
                users.append(max(0, users[-1] - self._net[segment.name, back]))
            found.append(SizeHistory(segment.name, segment.users_min, users[::-1]))
        return sorted(found, key=lambda one: (-one.users[-1], one.segment))


def bars(users: Sequence[int]) -> str:
    """A line of bars, of which the largest number is the highest.

    Examples
    --------
    >>> bars([0, 1, 4, 8])
    '▁▂▅█'
    """
    largest = max(users, default=0)
    return "".join(_BARS[number * (len(_BARS) - 1) // largest if largest else 0] for number in users)
