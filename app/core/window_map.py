"""The windows of a row by feature id, all in one piece of packed integers.

    [id, 5, total, pane, value, pane, value,  id, 3, hash, pane, ...]
         ^ how many numbers the state has

A state is a flat list of numbers, as `app.core.panes` and `app.core.marks` describe them. An ordinary event counts in
some windows and asks the total of others: that is done in place (`add`, `total`). Whatever else somebody wants of a
window he gets as a list, and gives back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from librt.vecs import append, vec
from mypy_extensions import i64, mypyc_attr

from app.core import panes
from app.core.packed_map import NOWHERE, PackedMap
from app.core.panes import NEVER_MS

TOTAL_MAX: Final = 2**61
"""What would make a window's total larger is not counted: a billion units, a million times."""
AHEAD: Final = -1
"""As a total: the window holds events of a time that is still to come."""
_FAR: Final = TOTAL_MAX + 1
"""No total is as large: a threshold beyond it says no more than this."""
_PLACES: Final = 3
_PANE: Final = 2


@mypyc_attr(acyclic=True)
class WindowMap(PackedMap):
    """As a dict from feature id to state; the lists that it gives are copies.

    It stands at the end of an array, which may be that of all numbers of a row, see `PairMap`.
    """

    __slots__ = ("_begin", "_flat")

    def __init__(self) -> None:
        self._flat: vec[i64] = vec[i64]()
        self._begin: i64 = 0

    @staticmethod
    def of(states: Mapping[int, panes.Panes]) -> WindowMap:
        """One with these."""
        made = WindowMap()
        for feature_id, state in states.items():
            made[feature_id] = state
        return made

    @staticmethod
    def taken(numbers: vec[i64], begin: i64) -> WindowMap:
        """One with what is behind a place of `numbers`, which it may change.

        Raises `msgspec.DecodeError` for something else.
        """
        end: i64 = len(numbers)
        at: i64 = begin
        while at < end:
            if at + 1 == end or numbers[at + 1] < 0:
                raise msgspec.DecodeError("a window does not say how long it is")
            at += 2 + numbers[at + 1]
        if at != end:
            raise msgspec.DecodeError("a window is not as long as it says")
        made = WindowMap()
        made._flat, made._begin = numbers, begin
        return made

    def numbers(self) -> vec[i64]:
        """An array that ends with the windows; not to be changed."""
        return self._flat

    def begin(self) -> i64:
        """Where in it they begin."""
        return self._begin

    def _at(self, feature_id: i64) -> i64:
        """Where the state begins, `NOWHERE` if there is none; the place before says how long it is."""
        flat = self._flat
        end: i64 = len(flat)
        at: i64 = self._begin
        while at < end:
            if flat[at] == feature_id:
                return at + 2
            at += 2 + flat[at + 1]
        return NOWHERE

    # -- totals, see `app.core.panes`

    def add(self, feature_id: i64, pane: i64, value: i64, current: i64, size: i64) -> i64:
        """`panes.add` to the feature's window, which is made when there is none, for a pane that is within it.

        Panes that have left the window stay until the next new one comes. Returns the window's total, or `AHEAD`.
        """
        at = self._at(feature_id)
        flat = self._flat
        if at == NOWHERE:
            flat = append(append(append(flat, feature_id), _PLACES), value)
            self._flat = append(append(flat, pane), value)
            if pane > current:
                return AHEAD
            return value
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
            at = self._at(feature_id)
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
        return 0 if at == NOWHERE else self._total(at, current - size, current)

    def _total(self, at: i64, oldest: i64, current: i64) -> i64:
        """Of the state there: the panes after `oldest`, up to `current`."""
        flat = self._flat
        end: i64 = at + flat[at - 1]
        if at == end:
            return 0
        if flat[at + 1] > oldest and flat[end - _PANE] <= current:
            return flat[at]
        found: i64 = 0
        place: i64 = at + 1
        while place < end:
            if oldest < flat[place] <= current:
                found += flat[place + 1]
            place += _PANE
        return found

    def at_least(self, feature_id: i64, threshold: i64, current: i64, size: i64, pane_ms: i64) -> tuple[bool, i64]:
        """Whether the total is `threshold` or more, and `crossing_ms` of it."""
        at = self._at(feature_id)
        if at == NOWHERE:
            return threshold <= 0, NEVER_MS
        flat = self._flat
        end: i64 = at + flat[at - 1]
        surplus: i64 = self._total(at, current - size, current) - threshold
        inside = surplus >= 0
        falls = inside and threshold > 0
        ahead = end > at and flat[end - _PANE] > current
        found: i64 = NEVER_MS
        place: i64 = at + 1
        while place < end and (falls or ahead):
            pane = flat[place]
            if pane > current:
                return inside, min(found, pane * pane_ms)
            if falls and pane > current - size:
                surplus -= flat[place + 1]
                if surplus < 0:
                    found = (pane + size) * pane_ms
                    falls = False
            place += _PANE
        return inside, found

    def crossing_ms(self, feature_id: i64, threshold: int, current: i64, size: i64, pane_ms: i64) -> int:
        """The earliest instant at which the clock may flip ``total >= threshold``; values are not negative.

        Exact unless a pane lies ahead of the clock: then at most that pane's start.
        """
        return self.at_least(feature_id, within(threshold), current, size, pane_ms)[1]

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
        return None if at == NOWHERE else self._list(at)

    def __getitem__(self, feature_id: int) -> list[int]:
        at = self._at(feature_id)
        if at == NOWHERE:
            raise KeyError(feature_id)
        return self._list(at)

    def __setitem__(self, feature_id: int, state: list[int]) -> None:
        at = self._at(feature_id)
        flat = self._flat
        end: i64 = len(flat)
        self._rewrite(end if at == NOWHERE else at - 2, end if at == NOWHERE else at + flat[at - 1], feature_id, state)

    def __delitem__(self, feature_id: int) -> None:
        at = self._at(feature_id)
        if at == NOWHERE:
            raise KeyError(feature_id)
        self._rewrite(at - 2, at + self._flat[at - 1], feature_id, None)

    def _rewrite(self, kept: i64, until: i64, feature_id: i64, state: list[int] | None) -> None:
        """Put a state, or nothing, in the place of what is between."""
        flat = self._flat
        made = vec[i64](capacity=len(flat) + 2 + (len(state) if state else 0))
        for number in flat[self._begin : kept]:
            made = append(made, number)
        if state is not None:
            made = append(append(made, feature_id), len(state))
            for one in state:
                made = append(made, one)
        for number in flat[until:]:
            made = append(made, number)
        self._flat, self._begin = made, 0

    def __contains__(self, feature_id: object) -> bool:
        return isinstance(feature_id, int) and self._at(feature_id) != NOWHERE

    def __bool__(self) -> bool:
        return len(self._flat) > self._begin

    def keys(self) -> list[int]:
        """The features' ids."""
        flat = self._flat
        end: i64 = len(flat)
        at: i64 = self._begin
        found: list[int] = []
        while at < end:
            found.append(flat[at])
            at += 2 + flat[at + 1]
        return found

    def values(self) -> list[list[int]]:
        """The states."""
        return [self[feature_id] for feature_id in self.keys()]

    def __reduce__(self) -> tuple[Callable[..., WindowMap], tuple[dict[int, panes.Panes]]]:
        return WindowMap.of, (dict(self.items()),)


def within(threshold: int) -> int:
    """The same as a bound of totals, and no larger than a window can reckon with."""
    return max(-_FAR, min(threshold, _FAR))
