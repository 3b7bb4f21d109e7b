"""Windowed totals as panes: a hopping window of size S and step s is the sum of the S/s newest panes of width s.

State is a flat list `[total, pane0, value0, pane1, value1, ...]`, panes ascending and never empty, so that a
user with few events costs a few bytes and one event touches one pane. Values are integers (counts, or sums in
thousandths), so that the order in which events arrive cannot change a total.

    pane:      7        8        9        10       now in pane 10, window of 3 panes
          [--------)[--------)[--------)[---|----)
                     ^^^^^^^^^^^^^^^^^^^^^^^^^ counted: panes 8, 9, 10
"""

from __future__ import annotations

from typing import Final

Panes = list[int]

NEVER_MS: Final = 2**61
"""After any time. It and the next are so near that the compiled core reckons with them as with any other: 62 bits."""
AGES_AGO_MS: Final = -(2**61)
"""Before any time."""


def add(state: Panes, pane: int, value: int, *, current: int, size: int) -> bool:
    """Add `value` to `pane` of a window of `size` panes that ends with pane `current`.

    Returns
    -------
    bool
        False when the pane has left the window already (the event is too late to count).
    """
    expire(state, current=current, size=size)
    if pane <= current - size:
        return False
    if not state:
        state.extend((value, pane, value))
        return True
    state[0] += value
    newest = state[-2]
    if pane == newest:
        state[-1] += value
    elif pane > newest:
        state.append(pane)
        state.append(value)
    else:
        _add_late(state, pane, value)
    return True


def _add_late(state: Panes, pane: int, value: int) -> None:
    at = len(state) - 2
    while at > 1 and state[at - 2] >= pane:
        at -= 2
    if state[at] == pane:
        state[at + 1] += value
    else:
        state[at:at] = (pane, value)


def expire(state: Panes, *, current: int, size: int) -> None:
    """Drop the panes that have left a window of `size` panes ending with pane `current`."""
    if not state or state[1] > current - size:
        return
    oldest = current - size
    at = 1
    end = len(state)
    gone = 0
    while at < end and state[at] <= oldest:
        gone += state[at + 1]
        at += 2
    if at == end:
        state.clear()
    else:
        state[0] -= gone
        del state[1:at]


def total(state: Panes | None, *, current: int, size: int) -> int:
    """The window's total; reads only, so that asking never changes a row."""
    if not state:
        return 0
    oldest = current - size
    if state[1] > oldest and state[-2] <= current:
        return state[0]
    result = 0
    for at in range(1, len(state), 2):
        if oldest < state[at] <= current:
            result += state[at + 1]
    return result
