"""What a persona is like, in words: from how its users differ from all."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from app.core.persona_vector import MEASURES
from app.learning.served_personas import Known, Served

SPREADS_MIN: Final = 0.8
"""A measure is worth a word when the persona's mean is so many spreads from everybody's."""
SHARE_MIN: Final = 0.2
LIFT_MIN: Final = 1.4
"""A part of a composition is, when it makes up so much of the persona's, and so many times everybody's share."""
WORDS_MAX: Final = 3
CHARS_MAX: Final = 80
_TEXT_CHARS_MAX: Final = 30
ORDERS_FEW: Final = 0.3
"""Orders a month below which people do not count as buyers."""

_IDLE: Final = "window-shoppers"
_BANDS: Final = {
    "after midnight": "night-time",
    "early morning": "early-morning",
    "morning": "morning",
    "afternoon": "afternoon",
    "early evening": "early-evening",
    "late evening": "late-evening",
}
# Measure to its words when it is low and when it is high: place in the name, word. Placing: 0 to 2 before the noun,
# 5 behind "who".
_WORDS: Final[dict[str, tuple[tuple[int, str] | None, tuple[int, str] | None]]] = {
    "recency_log_d": (None, (0, "lapsed")),
    "orders_month_log": ((0, "occasional"), (0, "frequent")),
    "order_value_log": ((1, "thrifty"), (1, "big-spending")),
    "events_week_log": ((0, "rare"), (0, "busy")),
    "active_share": ((0, "rare"), (0, "daily")),
    "open_logit": ((5, "who ignore notifications"), (5, "who open notifications")),
    "dismissed_share": (None, (5, "who dismiss notifications")),
}
_OF_BUYERS: Final = frozenset({"recency_log_d", "orders_month_log", "order_value_log"})


class Trait(msgspec.Struct, frozen=True):
    """How a persona differs in one respect: its mean and everybody's, readable, and by how much, the largest first."""

    what: str
    value: float
    everybody: float
    strength: float


class _Word(msgspec.Struct, frozen=True):
    place: int
    text: str
    strength: float


def readable(name: str, value: float) -> tuple[str, float]:
    """A column in words and everyday units: days, orders a month, money, events a week, shares."""
    kind, part, rest = name.partition("=")
    if part:
        kinds = {"h": "active ", "k": "interest in ", "d": "on "}
        return kinds.get(kind, "") + rest, max(value, 0.0) ** 2
    plain = {
        "recency_log_d": ("days since the last order", math.expm1(min(value, 20.0))),
        "orders_month_log": ("orders a month", math.expm1(min(value, 20.0))),
        "order_value_log": ("value of an order", math.expm1(min(value, 20.0))),
        "events_week_log": ("events a week", math.expm1(min(value, 20.0))),
        "active_share": ("share of active days", value),
        "open_logit": ("open rate", 1.0 / (1.0 + math.exp(-min(max(value, -30.0), 30.0)))),
        "dismissed_share": ("dismissed rate", value),
    }
    return plain.get(name, (name, value))


def traits_of(known: Known, served: Served) -> list[Trait]:
    """How the persona differs from everybody, the strongest first: every measure and what is in its compositions."""
    found = []
    for at, name in enumerate(served.columns):
        own, all_of = known.centroid[at], served.population[at]
        what, value = readable(name, own)
        everybody = readable(name, all_of)[1]
        if "=" in name and max(value, everybody) < 0.02:
            continue
        found.append(Trait(what, value, everybody, (own - all_of) * served.scales[at]))
    return sorted(found, key=lambda trait: (-abs(trait.strength), trait.what))


def name_of(centroid: Sequence[float], served: Served, taken: Collection[str]) -> str:
    """A name that says what tells the persona from the others, and that is not taken.

    Examples
    --------
    >>> served = Served(columns=["orders_month_log", "h=after midnight", "k=shoes"], scales=[2.0, 3.0, 3.0],
    ...                 population=[0.7, 0.3, 0.2])
    >>> name_of([0.8, 0.9, 0.8], served, ())
    'night-time shoppers of shoes'
    >>> name_of([0.0, 0.3, 0.2], served, ())
    'window-shoppers'
    >>> name_of([0.0, 0.3, 0.2], served, {"window-shoppers"})
    'window-shoppers 2'
    """
    mean = dict(zip(served.columns, centroid, strict=True))
    everybody = dict(zip(served.columns, served.population, strict=True))
    scales = dict(zip(served.columns, served.scales, strict=True))
    buys = math.expm1(mean.get("orders_month_log", 0.0)) >= ORDERS_FEW
    others_buy = math.expm1(everybody.get("orders_month_log", 0.0)) >= ORDERS_FEW
    noun = "shoppers" if buys else _IDLE if others_buy else "visitors"
    words = sorted(_words(mean, everybody, scales, buys=buys), key=lambda word: (-word.strength, word.place, word.text))
    for length in range(min(WORDS_MAX, len(words)), len(words) + 1):
        name = _joined(noun, words[:length])
        if name not in taken and len(name) <= CHARS_MAX:
            return name
    stem = _joined(noun, words[:WORDS_MAX])[: CHARS_MAX - 8]
    return next(name for number in range(2, 10_000) if (name := f"{stem} {number}") not in taken)


def _joined(noun: str, words: Sequence[_Word]) -> str:
    before = [word.text for word in sorted(words, key=_place) if word.place < 3]
    after = [word.text for word in sorted(words, key=_place) if word.place >= 3]
    return " ".join((*before, noun, *after)) if words or noun == _IDLE else f"typical {noun}"


def _place(word: _Word) -> int:
    return word.place


def _words(
    mean: Mapping[str, float], everybody: Mapping[str, float], scales: Mapping[str, float], *, buys: bool
) -> list[_Word]:
    """Every word that fits, one at most for each place in the name."""
    found: list[_Word] = []
    for name, (low, high) in _WORDS.items():
        if name not in mean or (name in _OF_BUYERS and not buys):
            continue
        apart = (mean[name] - everybody[name]) * scales[name]
        spreads = apart / MEASURES[name][0]
        chosen = high if spreads > 0 else low
        if chosen is not None and abs(spreads) >= SPREADS_MIN:
            found.append(_Word(*chosen, abs(apart)))
    for name, value in mean.items():
        kind, part, rest = name.partition("=")
        share, usual = max(value, 0.0) ** 2, max(everybody[name], 0.0) ** 2
        apart = (value - everybody[name]) * scales[name]
        if not part or share < SHARE_MIN or share < LIFT_MIN * usual:
            continue
        if kind == "h":
            found.append(_Word(2, _BANDS.get(rest, rest), apart))
        elif kind == "k" and (text := _plain(rest)):
            found.append(_Word(3, f"of {text}", apart))
        elif kind == "d" and share >= 0.7 and (text := _plain(rest)):
            found.append(_Word(4, f"on {text}", apart))
    best: dict[int, _Word] = {}
    for word in found:
        if word.place not in best or word.strength > best[word.place].strength:
            best[word.place] = word
    return list(best.values())


def _plain(text: str) -> str:
    """A category or a device as part of a name: lower case, printable, short."""
    printable = "".join(char if unicodedata.category(char)[0] not in "CZ" else " " for char in text.lower())
    return " ".join(printable.split())[:_TEXT_CHARS_MAX].strip()
