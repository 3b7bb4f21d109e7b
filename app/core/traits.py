"""Traits by event time: each is what the newest identify that spoke of it said, in whatever order identifies come.

An app that sends all it knows each time needs one time for all traits, `Profile.traits_ms`. A row whose traits were
said at different times, or taken back, has the rest in `Profile.older_traits`: traits stand in the order of their
times, so those of one identify are a run, and a run costs a few bytes however many traits it has.
"""

from __future__ import annotations

import heapq
from itertools import islice
from typing import Any, Final

from app.core.profile import Profile
from app.core.row_parts import OlderTraits
from app.core.values import ITEMS_MAX, NAME_CHARS_MAX, plain, scalar, weight

TRAITS_MAX: Final = 64
TRAITS_BYTES_MAX: Final = 32_000
REMOVED_MAX: Final = 16
"""Traits of which a row remembers that they were taken back; an older word on any other counts as the first."""


def times_of(profile: Profile) -> dict[str, int]:
    """When each trait was said, or taken back (a name that `profile.traits` does not have)."""
    names, newest_ms = iter(profile.traits), profile.traits_ms
    times: dict[str, int] = {}
    older = profile.older_traits
    if older is not None:
        for at in range(0, len(older.runs), 2):
            said_ms = newest_ms - older.runs[at + 1]
            for name in islice(names, older.runs[at]):
                times[name] = said_ms
    for name in names:
        times[name] = newest_ms
    if older is not None:
        times.update(older.removed)
    return times


def fold_traits(profile: Profile, traits: dict[str, Any], at_ms: int) -> bool:
    """Apply an identify's traits; None takes one back. What a row cannot hold says nothing.

    Returns
    -------
    bool
        Whether this is the newest word on the trait ``timezone``.
    """
    if not traits:
        return False
    kept, times = dict(profile.traits), times_of(profile)
    room = TRAITS_BYTES_MAX - sum([weight(name) + _weight(value) for name, value in kept.items()])
    zoned = "timezone" in traits and at_ms >= times.get("timezone", at_ms)
    for name, value in traits.items():
        if len(name) > NAME_CHARS_MAX or at_ms < times.get(name, at_ms):
            continue
        if value is None:
            kept.pop(name, None)
            times[name] = at_ms
        elif (name in kept or len(kept) < TRAITS_MAX) and (copy := _plain(value)) is not None:
            needed = _weight(copy) - _weight(kept[name]) if name in kept else weight(name) + _weight(copy)
            if needed <= room:
                kept[name] = copy
                times[name] = at_ms
                room -= needed
    _keep(profile, kept, times)
    return zoned


def _plain(value: object) -> object | None:
    """What a row may hold of a trait: as `values.plain`, and of an object (an address, say) its own plain fields."""
    if not isinstance(value, dict):
        return plain(value)
    fields = [
        (name, field) for name, field in value.items() if len(name) <= NAME_CHARS_MAX and scalar(field) is not None
    ]
    return dict(fields[:ITEMS_MAX]) or None


def _weight(value: object) -> int:
    if isinstance(value, dict):
        return 5 + sum([weight(name) + weight(field) for name, field in value.items()])
    return weight(value)


def merge_traits(row: Profile, other: Profile) -> None:
    """Add the other row's: of each trait the newest word stands, at equal times the row's own."""
    kept, times = dict(row.traits), times_of(row)
    for name, at_ms in times_of(other).items():
        if name in times and at_ms <= times[name]:
            continue
        times[name] = at_ms
        if name in other.traits:
            kept[name] = other.traits[name]
        else:
            kept.pop(name, None)
    for name in heapq.nsmallest(len(kept) - TRAITS_MAX, kept, key=lambda name: times[name]):
        del kept[name], times[name]
    _keep(row, kept, times)


def _keep(profile: Profile, kept: dict[str, Any], times: dict[str, int]) -> None:
    """Write traits and their times as compactly as they allow."""
    newest_ms = max(times.values(), default=profile.traits_ms)
    ordered = sorted(kept, key=lambda name: times[name])
    runs: list[int] = []
    for name in ordered:
        age_ms = newest_ms - times[name]
        if not age_ms:
            break
        if runs and runs[-1] == age_ms:
            runs[-2] += 1
        else:
            runs += (1, age_ms)
    removed = {name: at_ms for name, at_ms in times.items() if name not in kept}
    if len(removed) > REMOVED_MAX:
        removed = dict(heapq.nlargest(REMOVED_MAX, removed.items(), key=lambda item: item[1]))
    profile.traits = {name: kept[name] for name in ordered}
    profile.traits_ms = newest_ms
    profile.older_traits = OlderTraits(runs, removed) if runs or removed else None
