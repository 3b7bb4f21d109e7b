"""Folding the history of some users into windows, by the same code that folds their present."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from app.core import owed
from app.core.campaign import Campaign
from app.core.effects import Record
from app.core.history import Windows, windows_only
from app.core.panes import Panes
from app.core.plan import Plan
from app.core.processor import Processor
from app.core.profile import Profile
from schemas.erasures import Subjects

_ACKNOWLEDGED: Final = 2**62


class _NoScorer:
    version = 0

    def open_probability(self, _features: Mapping[str, float]) -> float:
        return 0.0


def _no_features(_profile: Profile, _campaign: Campaign, _now_ms: int, _plan: Plan) -> dict[str, float]:
    return {}


class HistoryFold:
    """Windows of some users, from the beginning of one partition on.

    What a producer repeated is counted once, and what was too old or too far ahead is left out, as it was then. What
    the fold has to say (dead letters) was said then, and is dropped.

    Parameters
    ----------
    covers
        Ids of the features to fold; those that the plan does not have stay empty.
    keys
        The users; everybody else's records are passed by.
    subjects
        Needed to know a request to erase: what a user did before it is not folded.
    """

    def __init__(
        self, plan: Plan, covers: frozenset[int], keys: Collection[bytes], subjects: Subjects | None = None
    ) -> None:
        self._processor = Processor(windows_only(plan, covers), _NoScorer(), _no_features, subjects)
        self._keys = frozenset(keys)
        self._rows: dict[bytes, Profile] = {}
        self._covers = covers

    def add(self, records: Sequence[Record], now_ms: int) -> None:
        """Fold consecutive records, which arrived at about `now_ms` (event-time milliseconds)."""
        wanted = [record for record in records if record.key in self._keys]
        if wanted:
            effects = self._processor.process(
                wanted, "", 0, self._rows, now_ms=now_ms, acked_offset=_ACKNOWLEDGED, reload=None
            )
            for row in effects.changed.values():
                owed.settle(row)

    def read_to(self, next_offset: int) -> Windows:
        """The windows as they are when every record before `next_offset` has been folded."""
        by_key: dict[bytes, dict[int, Panes]] = {key: dict(row.features.items()) for key, row in self._rows.items()}
        return Windows(self._covers, next_offset, by_key)
