"""Timers of a row: what must be looked at again when nothing happens.

They live in the row, so that they are as durable as it is; the shell only keeps an index of the earliest one. Each
kind has a limit of its own, so that a user with a thousand carts cannot push out the labels.
"""

from __future__ import annotations

from typing import Final

from app.core.ids import stable_id
from app.core.profile import Profile
from app.core.row_parts import Timer

ABSENCE: Final = 1
"""The wait of an `absence` campaign (`ref`) for `key`."""
DORMANCY: Final = 2
"""The wait of a `dormancy` campaign (`ref`); re-armed by the newest activity when it comes due."""
HORIZON: Final = 3
"""The end of a decision's label horizon; `key` is the decision's short id."""
DEFERRED: Final = 4
"""A candidate that waits for the end of quiet hours; `origin` is its own."""

TIDY: Final = 7
"""Of the mark of an erased user: the outputs that it owed have been acknowledged by now."""

SEND_TIME: Final = 5
"""A candidate that waits for a good hour to be sent in; `origin` is its own."""
DEFERRALS: Final = (DEFERRED, SEND_TIME)
_CANCELLABLE: Final = (ABSENCE, DEFERRED, SEND_TIME)
SCHEDULE: Final = 6
"""The next time of a `schedule` campaign (`ref`); `key` is the zone and `origin` the schedule for which it was set."""

LOOK: Final = 8
"""The next look at the user for a propensity model (`ref`), or for their persona (`PERSONAS`)."""
PERSONAS: Final = stable_id("$personas")
"""No model's name begins with a dollar."""

REWARD: Final = 9
"""The end of a reward's window (`app.core.rewards`); `key` is the decision's short id."""

LIMITS: Final = {
    ABSENCE: 32,
    DORMANCY: 32,
    HORIZON: 32,
    DEFERRED: 16,
    SEND_TIME: 16,
    SCHEDULE: 32,
    LOOK: 16,
    REWARD: 32,
}


def find(profile: Profile, kind: int, ref: int, key: str) -> Timer | None:
    """The row's timer of that kind, campaign and key."""
    for timer in profile.timers:
        if timer.ref == ref and timer.kind == kind and timer.key == key:
            return timer
    return None


def put(profile: Profile, timer: Timer) -> Timer | None:
    """Add a timer. Returns the one of its kind that was dropped to keep the limit: the first that would be due."""
    same = [other for other in profile.timers if other.kind == timer.kind]
    dropped = None
    if len(same) >= LIMITS[timer.kind]:
        dropped = min(same, key=lambda other: other.due_ms)
        profile.timers.remove(dropped)
    profile.timers.append(timer)
    return dropped


def cancel(profile: Profile, ref: int, key: str | None, *, before_ms: int) -> int:
    """Cancel what waits for a campaign: absences, and candidates deferred by quiet hours or to a good hour.

    Parameters
    ----------
    key
        The trigger key to cancel whatever its time; None cancels every key that was set at or before `before_ms`
        (a back-dated event does not cancel a wait that began after it).

    Returns
    -------
    int
        How many were cancelled.
    """
    kept = [
        timer
        for timer in profile.timers
        if timer.ref != ref
        or timer.kind not in _CANCELLABLE
        or (timer.set_ms > before_ms if key is None else timer.key != key)
    ]
    cancelled = len(profile.timers) - len(kept)
    if cancelled:
        profile.timers = kept
    return cancelled


def pop_due(profile: Profile, now_ms: int) -> list[Timer]:
    """Remove and return the timers due at or before `now_ms`, earliest first."""
    due = [timer for timer in profile.timers if timer.due_ms <= now_ms]
    if due:
        profile.timers = [timer for timer in profile.timers if timer.due_ms > now_ms]
        due.sort(key=lambda timer: (timer.due_ms, timer.kind, timer.ref, timer.key))
    return due
