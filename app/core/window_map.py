"""The windows of a row by feature id, all in one piece of packed integers.

    [id, 5, total, pane, value, pane, value,  id, 3, hash, pane, ...]
         ^ how many numbers the state has

A state is a flat list of numbers, as `app.core.panes` and `app.core.marks` describe them. An ordinary event counts in
some windows and asks the total of others: that is done in place (`add`, `total`). Whatever else somebody wants of a
window he gets as a list, and gives back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from librt.vecs import append, vec
from mypy_extensions import i64, mypyc_attr

from app.core import panes
from app.core.panes import NEVER_MS

TOTAL_MAX: Final = 2**61
"""What would make a window's total larger is not counted: a billion units, a million times."""
AHEAD: Final = -1
"""As a total: the window holds events of a time that is still to come."""
_NOWHERE: Final = -1
_PLACES: Final = 3
_PANE: Final = 2


@mypyc_attr(acyclic=True)
class WindowMap:
    """As a dict from feature id to state; the lists that it gives are copies."""

    __slots__ = ("_flat",)

    def __init__(self) -> None:
        self._flat: vec[i64] = vec[i64]()

    @staticmethod
    def of(states: Mapping[int, panes.Panes]) -> WindowMap:
        """One with these."""
        made = WindowMap()
        for feature_id, state in states.items():
            made[feature_id] = state
        return made

    @staticmethod
    def taken(numbers: vec[i64], begin: i64) -> WindowMap:
        """One with what is behind a place of `numbers`. Raises `msgspec.DecodeError` for something else."""
        end: i64 = len(numbers)
        at: i64 = begin
        while at < end:
            if at + 1 == end or numbers[at + 1] < 0:
                raise msgspec.DecodeError("a window does not say how long it is")
            at += 2 + numbers[at + 1]
        if at != end:
            raise msgspec.DecodeError("a window is not as long as it says")
        made = WindowMap()
        made._flat = numbers[begin:]
        return made

    def numbers(self) -> vec[i64]:
        """Everything; not to be changed."""
        return self._flat

    def _at(self, feature_id: i64) -> i64:
        """Where the state begins, `_NOWHERE` if there is none; the place before says how long it is."""
        flat = self._flat
        end: i64 = len(flat)
        at: i64 = 0
        while at < end:
            if flat[at] == feature_id:
                return at + 2
            at += 2 + flat[at + 1]
        return _NOWHERE

    # -- totals, see `app.core.panes`

    def add(self, feature_id: i64, pane: i64, value: i64, current: i64, size: i64) -> i64:
        """`panes.add` to the feature's window, which is made when there is none, for a pane that is within it.

        Panes that have left the window stay until the next new one comes. Returns the window's total, or `AHEAD`.
        """
        at = self._at(feature_id)
        flat = self._flat
        if at == _NOWHERE:
            flat = append(append(append(flat, feature_id), _PLACES), value)
            self._flat = append(append(flat, pane), value)
            return value if pane <= current else AHEAD
        length = flat[at - 1]
        newest: i64 = flat[at + length - _PANE] if length else pane + 1
        if length and flat[at] > TOTAL_MAX - value:
            return self.total(feature_id, current, size)
        oldest: i64 = current - size
        if newest == pane:
            flat[at] += value
            flat[at + length - 1] += value
        elif newest < pane and flat[at + 1] > oldest:
            flat[at] += value
            flat[at - 1] += _PANE
            self._insert(at + length, pane, value)
        else:
            state = self._list(at)
            panes.add(state, pane, value, current=current, size=size)
            self[feature_id] = state
            newest = state[-_PANE] if state else pane
        if pane > current or newest > current:
            return AHEAD
        flat = self._flat
        return flat[at] if flat[at + 1] > oldest else self.total(feature_id, current, size)

    def _insert(self, at: i64, pane: i64, value: i64) -> None:
        """A pane, before what stands at a place."""
        flat = append(append(self._flat, 0), 0)
        behind: i64 = len(flat) - 1
        while behind > at + 1:
            flat[behind] = flat[behind - _PANE]
            behind -= 1
        flat[at] = pane
        flat[at + 1] = value
        self._flat = flat

    def total(self, feature_id: i64, current: i64, size: i64) -> i64:
        """`panes.total` of the feature's window."""
        at = self._at(feature_id)
        if at == _NOWHERE:
            return 0
        flat = self._flat
        end: i64 = at + flat[at - 1]
        if at == end:
            return 0
        oldest: i64 = current - size
        if flat[at + 1] > oldest and flat[end - _PANE] <= current:
            return flat[at]
        found: i64 = 0
        place: i64 = at + 1
        while place < end:
            if oldest < flat[place] <= current:
                found += flat[place + 1]
            place += _PANE
        return found

    def crossing_ms(self, feature_id: i64, threshold: int, current: i64, size: i64, pane_ms: i64) -> int:
        """The earliest instant at which the clock may flip ``total >= threshold``; values are not negative.

        Exact unless a pane lies ahead of the clock: then at most that pane's start.
        """
        at = self._at(feature_id)
        if at == _NOWHERE:
            return NEVER_MS
        flat = self._flat
        end: i64 = at + flat[at - 1]
        oldest: i64 = current - size
        surplus: int = self.total(feature_id, current, size) - threshold
        falls = surplus >= 0 and threshold > 0
        found: int = NEVER_MS
        place: i64 = at + 1
        while place < end:
            pane = flat[place]
            if pane > current:
                return min(found, pane * pane_ms)
            if falls and pane > oldest:
                surplus -= flat[place + 1]
                if surplus < 0:
                    found = (pane + size) * pane_ms
                    falls = False
            place += _PANE
        return found

    # -- as a dict

    def _list(self, at: i64) -> list[int]:
        flat = self._flat
        end: i64 = at + flat[at - 1]
        found: list[int] = []
        while at < end:
            found.append(flat[at])
            at += 1
        return found

    def get(self, feature_id: int) -> list[int] | None:
        """The state, None when there is none."""
        at = self._at(feature_id)
        return None if at == _NOWHERE else self._list(at)

    def __getitem__(self, feature_id: int) -> list[int]:
        at = self._at(feature_id)
        if at == _NOWHERE:
            raise KeyError(feature_id)
        return self._list(at)

    def __setitem__(self, feature_id: int, state: list[int]) -> None:
        at = self._at(feature_id)
        flat = self._flat
        end: i64 = len(flat)
        until: i64 = end if at == _NOWHERE else at + flat[at - 1]
        kept: i64 = end if at == _NOWHERE else at - 2
        made = vec[i64](capacity=end + 2 + len(state))
        place: i64 = 0
        while place < kept:
            made = append(made, flat[place])
            place += 1
        made = append(append(made, feature_id), len(state))
        for number in state:
            made = append(made, number)
        while until < end:
            made = append(made, flat[until])
            until += 1
        self._flat = made

    def __delitem__(self, feature_id: int) -> None:
        at = self._at(feature_id)
        if at == _NOWHERE:
            raise KeyError(feature_id)
        flat = self._flat
        until: i64 = at + flat[at - 1]
        made = vec[i64](capacity=len(flat))
        for number in flat[: at - 2]:
            made = append(made, number)
        for number in flat[until:]:
            made = append(made, number)
        self._flat = made

    def __contains__(self, feature_id: object) -> bool:
        return isinstance(feature_id, int) and self._at(feature_id) != _NOWHERE

    def __bool__(self) -> bool:
        return len(self._flat) > 0

    def __len__(self) -> int:
        return len(self.keys())

    def __iter__(self) -> Iterator[int]:
        return iter(self.keys())

    def keys(self) -> list[int]:
        """The features' ids."""
        flat = self._flat
        end: i64 = len(flat)
        at: i64 = 0
        found: list[int] = []
        while at < end:
            found.append(flat[at])
            at += 2 + flat[at + 1]
        return found

    def items(self) -> list[tuple[int, list[int]]]:
        """Ids with their states."""
        return [(feature_id, self[feature_id]) for feature_id in self.keys()]

    def values(self) -> list[list[int]]:
        """The states."""
        return [self[feature_id] for feature_id in self.keys()]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, WindowMap):
            return dict(self.items()) == dict(other.items())
        return dict(self.items()) == other

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Callable[..., WindowMap], tuple[dict[int, panes.Panes]]]:
        return WindowMap.of, (dict(self.items()),)

    def __repr__(self) -> str:
        return repr(dict(self.items()))
