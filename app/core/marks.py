"""Windowed state that is not a total: distinct values, the times that sequences are read from, and sessions.

Each is a flat list of integers beside the totals of `app.core.panes`, under the feature's id.

    distinct   [value hash, newest pane, ...]      newest last; at most `DISTINCT_MAX` values
    times      [time, ...]                         ascending; the newest `TIMES_MAX`
    session    [start, last, events]               of the newest session
    sessions   [last, total, pane, sessions, ...]  a session counts in the pane in which it began

Distinct values and times commute: whatever the order of arrival, the state ends the same, as long as the bounds are not
met. A session is told by the order of arrival: an event that is older than the newest session belongs to none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import xxhash

from app.core import panes
from app.core.expression_runtime import total_step_ms
from app.core.panes import NEVER_MS, Panes
from app.core.values import property_at
from app.core.window_map import WindowMap
from schemas.events import Event

DISTINCT_MAX: Final = 64
"""Different values that a row can tell apart in one window; a count of them ends there."""
TIMES_MAX: Final = 16
"""Occurrences of each step that a sequence looks back on."""
SESSION_GAP_MS: Final = 30 * 60_000
"""A session ends when nothing has come for half an hour, as in every web analytics tool since Urchin."""


class MarkOp(NamedTuple):
    """A feature of this module to fold.

    `path` leads to the value of a distinct count; `named` is the event that a session counts, empty for any.
    """

    id: int
    kind: str
    pane_ms: int
    size: int
    path: tuple[str, ...]
    where: Callable[[Mapping[str, Any]], bool] | None
    named: str


def value_hash(value: object) -> int | None:
    """A 32-bit hash of a property's value; None for what is no text and no number (JSON's true and false are none)."""
    if type(value) is str:
        return int(xxhash.xxh32_intdigest(value.encode()))
    if type(value) is int or type(value) is float:
        return int(xxhash.xxh32_intdigest(f"\x00{value + 0.0!r}".encode()))
    return None


# -- folding


def fold(windows: WindowMap, ops: tuple[MarkOp, ...], event: Event, at_ms: int, now_ms: int) -> None:
    """Apply a track event."""
    properties = event.properties
    for op in ops:
        if op.where is not None and not op.where(properties):
            continue
        state = windows.get(op.id) or []
        if op.kind == "times":
            add_time(state, at_ms)
        elif op.kind == "session":
            add_to_session(state, at_ms, int(not op.named or op.named == event.event))
        else:
            pane, current = at_ms // op.pane_ms, now_ms // op.pane_ms
            if op.kind == "sessions":
                add_to_sessions(state, at_ms, pane, current=current, size=op.size)
            elif (digest := value_hash(property_at(properties, op.path))) is not None:
                add_distinct(state, digest, pane, current=current, size=op.size)
        if state:
            windows[op.id] = state


def add_distinct(state: list[int], digest: int, pane: int, *, current: int, size: int) -> None:
    """Note that a value was seen in `pane` of a window of `size` panes that ends with `current`."""
    if pane <= current - size:
        return
    seen = dict(zip(state[::2], state[1::2], strict=True))
    if seen.get(digest, pane - 1) < pane:
        seen[digest] = pane
    kept = sorted((newest, value) for value, newest in seen.items() if newest > current - size)[-DISTINCT_MAX:]
    state[:] = [number for newest, value in kept for number in (value, newest)]


def add_time(state: list[int], at_ms: int) -> None:
    """Note when an event happened."""
    at = len(state)
    while at and state[at - 1] > at_ms:
        at -= 1
    state.insert(at, at_ms)
    if len(state) > TIMES_MAX:
        del state[0]


def add_to_session(state: list[int], at_ms: int, counts: int) -> None:
    """Take an event into the session under way, or begin one. `counts` is 1 if it is of the events to count."""
    if not state or at_ms >= state[1] + SESSION_GAP_MS:
        state[:] = [at_ms, at_ms, counts]
    elif at_ms > state[0] - SESSION_GAP_MS:
        state[:] = [min(state[0], at_ms), max(state[1], at_ms), state[2] + counts]


def add_to_sessions(state: list[int], at_ms: int, pane: int, *, current: int, size: int) -> None:
    """Count a session if this event begins one."""
    if not state or at_ms >= state[0] + SESSION_GAP_MS:
        counted: Panes = state[1:]
        panes.add(counted, pane, 1, current=current, size=size)
        state[:] = [at_ms, *counted]
    elif at_ms > state[0]:
        state[0] = at_ms


# -- reading: called by compiled expressions, with None for a state that is not there


def distinct(state: list[int] | None, current: int, size: int) -> int:
    """How many different values the window has seen."""
    if not state:
        return 0
    oldest = current - size
    return sum(oldest < pane <= current for pane in state[1::2])


def distinct_crossing_ms(state: list[int] | None, threshold: int, current: int, size: int, pane_ms: int) -> int:
    """The earliest instant at which the clock may flip ``distinct >= threshold``."""
    if not state:
        return NEVER_MS
    oldest = current - size
    ahead_ms = min((pane * pane_ms for pane in state[1::2] if pane > current), default=NEVER_MS)
    held = sorted(pane for pane in state[1::2] if oldest < pane <= current)
    if threshold <= 0 or len(held) < threshold:
        return ahead_ms
    return min(ahead_ms, (held[-threshold] + size) * pane_ms)


def distinct_step_ms(state: list[int] | None, current: int, size: int, pane_ms: int) -> int:
    """The earliest instant at which the clock may change a distinct count."""
    if not state:
        return NEVER_MS
    return min(
        (
            pane * pane_ms if pane > current else (pane + size) * pane_ms
            for pane in state[1::2]
            if pane > current - size
        ),
        default=NEVER_MS,
    )


def followed_ms(first: list[int] | None, second: list[int] | None, within_ms: int) -> int | None:
    """When the second event last came no later than `within_ms` after one of the first; None if it never did."""
    for end_ms in reversed(second or ()):
        if any(end_ms - within_ms <= start_ms <= end_ms for start_ms in first or ()):
            return end_ms
    return None


def repeated_ms(times: list[int] | None, within_ms: int) -> int | None:
    """As `followed_ms` of an event and itself: it must have happened twice."""
    for before_ms, end_ms in reversed(list(itertools.pairwise(times or ()))):
        if end_ms - within_ms <= before_ms:
            return end_ms
    return None


def session_events(state: list[int] | None, now_ms: int) -> int:
    """Events of the session under way, 0 when there is none."""
    return state[2] if state and now_ms < state[1] + SESSION_GAP_MS else 0


def session_minutes(state: list[int] | None, now_ms: int) -> float:
    """Minutes from the first to the newest event of the session under way, 0 when there is none."""
    return (state[1] - state[0]) / 60_000 if state and now_ms < state[1] + SESSION_GAP_MS else 0.0


def session_end_ms(state: list[int] | None, now_ms: int) -> int:
    """When the session under way ends if nothing more comes."""
    return state[1] + SESSION_GAP_MS if state and now_ms < state[1] + SESSION_GAP_MS else NEVER_MS


def sessions(state: list[int] | None, current: int, size: int) -> int:
    """How many sessions began within the window."""
    return panes.total(state[1:], current=current, size=size) if state else 0


def sessions_step_ms(state: list[int] | None, current: int, size: int, pane_ms: int) -> int:
    """The earliest instant at which the clock may change a number of sessions."""
    return total_step_ms(state[1:], current, size, pane_ms) if state else NEVER_MS
