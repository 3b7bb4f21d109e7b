"""Event names: those that everybody's events have, and which name was perhaps meant by one that nobody knows.

Any name may be used in a policy, so an unknown one is no mistake. One that differs from a known name as a slip of the
finger does, or as `order_completed` does from `Order Completed`, is worth a warning: such a condition never holds, and
says nothing. Names that differ in a whole word, in a number, or by a prefix (`Liked`, `Unliked`) are different events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from app.core.wishes import ENDED_BY, WISHED_BY
from schemas import events

STANDARD_EVENTS: Final = frozenset(
    {
        events.NOTIFICATION_SENT,
        "Notification Delivered",
        events.NOTIFICATION_OPENED,
        events.NOTIFICATION_CLICKED,
        events.NOTIFICATION_DISMISSED,
        events.NOTIFICATION_FAILED,
        events.NOTIFICATIONS_ENABLED,
        events.NOTIFICATIONS_DISABLED,
        events.DEVICE_TOKEN_REMOVED,
        events.APPLICATION_OPENED,
        events.PRODUCT_VIEWED,
        events.PRODUCT_ADDED,
        events.ORDER_COMPLETED,
        *WISHED_BY,
        *ENDED_BY,
    }
)
"""Those of which the engine or its senders know something."""
SPECIFIED_EVENTS: Final = STANDARD_EVENTS.union(
    f"{thing} {happened}"
    for thing, what in {
        "Application": "Installed Updated Backgrounded Crashed Uninstalled",
        "Cart": "Viewed Shared",
        "Checkout": "Started",
        "Checkout Step": "Viewed Completed",
        "Coupon": "Entered Applied Denied Removed",
        "Order": "Updated Refunded Cancelled",
        "Payment Info": "Entered",
        "Product": "Clicked Shared Reviewed",
        "Product List": "Viewed Filtered",
        "Products": "Searched",
        "Promotion": "Viewed Clicked",
        "Signed": "Up In Out",
    }.items()
    for happened in what.split()
)
"""And those of Segment's specifications of e-commerce, mobile and accounts."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W_]")
_STEM_MIN, _SLIP_MIN = 4, 5
"""Letters of a word below which another ending, or another letter, makes another word more often than a slip does."""


class Known:
    """Names that there are.

    Examples
    --------
    >>> known = Known(["Product Viewed", "Order Completed"])
    >>> [known.meant_by(name) for name in ("Prodct Viewed", "order_completed", "Product Unliked")]
    ['Product Viewed', 'Order Completed', '']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._near: dict[tuple[object, ...], dict[str, tuple[str, ...]]] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """One name more."""
        words = _words(name)
        for key in _keys(words):
            self._near.setdefault(key, {})[name] = words

    def meant_by(self, name: str) -> str:
        """The known name of which this one, which is not known, is perhaps a misspelling; empty when there is none."""
        words = _words(name)
        near = {other: theirs for key in _keys(words) for other, theirs in self._near.get(key, {}).items()}
        alike = [other for other, theirs in near.items() if _alike(words, theirs)]
        return min(alike, key=lambda other: (abs(len(other) - len(name)), other), default="")


def doubtful(uses: Mapping[str, int], known: frozenset[str] = SPECIFIED_EVENTS) -> dict[str, str]:
    """Of the names that a policy uses, and how often, those that are perhaps meant to be others.

    A name that is like no known one may be like another of the policy: then the one that is used less is in doubt, of
    two that are used as often the later one.
    """
    names, found = Known(known), {}
    for name in sorted((name for name in uses if name not in known), key=lambda name: -uses[name]):
        if meant := names.meant_by(name):
            found[name] = meant
        else:
            names.add(name)
    return found


def unseen(places: Mapping[str, str], seen: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """What there is to say of the names at `places` that are not among those `seen`, with how often.

    Returns
    -------
    tuple
        Warnings about those that are like one that was seen, and the other names. Nothing when nothing was seen.
    """
    known = Known(seen)
    missing = sorted(name for name in places if name not in seen) if seen else []
    meant = {name: other for name in missing if (other := known.meant_by(name))}
    warnings = [
        f"{places[name]}: nobody sends {name!r}; did you mean {other!r} ({seen[other]:,} of the newest events)?"
        for name, other in meant.items()
    ]
    return warnings, [name for name in missing if name not in meant]


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORDS.findall(name))


def _keys(words: tuple[str, ...]) -> Iterable[tuple[object, ...]]:
    """Names that share one may be alike: all words but one are the same, and its first letter; or all letters are."""
    if words:
        yield (-1, "".join(words))
    for at, word in enumerate(words):
        yield (at, word[0], *words[:at], *words[at + 1 :])


def _alike(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether at most one word differs, and that as a slip differs."""
    if "".join(ours) == "".join(theirs):
        return True
    different = [pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]]
    return len(ours) == len(theirs) and len(different) == 1 and _same_word(*different[0])


def _same_word(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if not (short + long).isalpha() or long.endswith(short):
        return False
    same_stem = len(short) >= _STEM_MIN and _stem(one) == _stem(other)
    return same_stem or (len(long) >= _SLIP_MIN and _one_slip(short, long))


def _stem(word: str) -> str:
    return re.sub("(ed|ing|es|s|d)$", "", word)


def _one_slip(short: str, long: str) -> bool:
    """One letter more, less or another, or two that changed places; the first letter is seldom wrong."""
    at = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if at == 0:
        return False
    if len(short) != len(long):
        return short[at:] == long[at + 1 :]
    return short[at + 1 :] == long[at + 1 :] or (
        short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]
    )
