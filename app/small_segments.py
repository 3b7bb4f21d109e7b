"""Says in the log which segments stay smaller than the policy wants them, once a version has settled.

Too fine a division teaches the models little, and no effect can be measured on it. The alert `NudgeSegmentSmall` says
the same from the exact sum over all workers; this is for those who read logs. A worker knows only its own partitions,
and users are spread over them by hash, so it estimates; the one with partition 0 speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog

from app.core.plan import Plan
from app.stream.background import Background

log = structlog.get_logger(__name__)

SPEAKER: Final = 0
_LOOK_S: Final = 60.0


class SmallSegments(Background):
    """Looks at the sizes now and then.

    Parameters
    ----------
    sizes
        Users in each segment, of this worker's partitions.
    owned
        This worker's partitions; empty while they are being moved or brought to the policy.
    settle_s
        How long a segment must have been too small.
    """

    task_name = "small-segments"

    def __init__(
        self,
        plan: Callable[[], Plan],
        sizes: Callable[[], Mapping[str, int]],
        owned: Callable[[], Collection[int]],
        *,
        partitions: int,
        settle_s: float,
    ) -> None:
        self._plan = plan
        self._sizes = sizes
        self._owned = owned
        self._partitions = partitions
        self._settle_s = settle_s
        self._since: dict[tuple[str, str], float] = {}
        self._told: set[tuple[str, str]] = set()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self.look(clock())
            await asyncio.sleep(_LOOK_S)

    def look(self, now_s: float) -> None:
        """Say which segments have been too small for long enough; each once a policy version."""
        owned, plan = self._owned(), self._plan()
        if SPEAKER not in owned:
            self._since.clear()
            return
        sizes, scale = self._sizes(), self._partitions / len(owned)
        small = {}
        for segment in plan.segments:
            users = round(sizes.get(segment.name, 0) * scale)
            if users < segment.users_min:
                small[plan.version, segment.name] = users
                self._since.setdefault((plan.version, segment.name), now_s)
                if now_s - self._since[plan.version, segment.name] >= self._settle_s:
                    self._tell(plan.version, segment.name, users, segment.users_min)
        self._since = {key: at_s for key, at_s in self._since.items() if key in small}

    def _tell(self, version: str, segment: str, users: int, users_min: int) -> None:
        if (version, segment) not in self._told:
            self._told.add((version, segment))
            log.warning("segment_small", segment=segment, users_estimated=users, minimum_size=users_min)
