"""How much a user cares for a category: events of it, each worth 1 at first and a half after two weeks.

A worth that halves with time is a curve, and one number says which: the instant at which it is 1, the *level*.

    worth  3 |\\
             |  \\
           1 |- - -\\- - - - -
             +-----|----------> time     worth(now) = 2 ** ((level - now) / half-life)
                 level

So an interest is one integer of a row in place of a score and its time, two compare as their levels do, whatever the
time is, and nothing is to be aged when an event comes. Levels are whole seconds since 1970 (four bytes until 2106),
which is a worth to within a millionth; of an interest worth millions of events one more is lost in that.
"""

from __future__ import annotations

import math
from typing import Final

HALF_LIFE_MS: Final = 14 * 86_400_000
_MEAN_LIFE_S: Final = HALF_LIFE_MS / 1000 / math.log(2)
_LOG_WORTH_MAX: Final = 50.0
"""Of a level far ahead of the time asked for: a clock that was set back. It keeps `exp` finite."""


def level_at(at_ms: int) -> int:
    """The level of one event at that time: it is worth 1 then."""
    return at_ms // 1000


def added(level: int, other: int) -> int:
    """The level of two interests taken together, in either order.

    Examples
    --------
    >>> added(0, 0) == HALF_LIFE_MS // 1000  # two events now are one after the half-life
    True
    """
    if other > level:
        level, other = other, level
    # `int` and not `round`, which mypyc would look up and call: it is asked with most events, and never below 0.
    return level + int(_MEAN_LIFE_S * math.log(1.0 + math.exp((other - level) / _MEAN_LIFE_S)) + 0.5)


def worth(level: int, now_ms: int) -> float:
    """What an interest is worth now, above 0."""
    return math.exp(min((level - now_ms // 1000) / _MEAN_LIFE_S, _LOG_WORTH_MAX))


def level_of(score: float, at_ms: float) -> int:
    """The level of an interest that is worth `score`, above 0, at a time.

    Examples
    --------
    >>> round(worth(level_of(3.0, 1_000_000), 1_000_000), 5)
    3.0
    """
    return round(at_ms / 1000 + _MEAN_LIFE_S * math.log(score))
