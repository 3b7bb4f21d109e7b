"""Thompson sampling of the hour to send in: a smooth curve of each user's own, drawn and not just estimated.

Twenty-four separate arms are too many for a user who is sent thirty notifications a season. So the user's response in
the hour of the week h, relative to their mean rate, is taken for

    curve(h) * (1 + theta . phi(h))        phi(h) = 1, cos and sin of the hour of the day, and of twice it

with the global `curve` (`app.core.send_time.curve_of`) and a normal prior on theta. Each matured send is an observation
with a coin's variance; the posterior is that of a linear regression, found anew from the row's counts at each choice.

`DRAWS` curves are drawn from it, always with the same table of normals, and one of them is chosen by the decision's
dice. Which hour is best in how many of the curves is therefore exactly the probability with which it is chosen: the
propensity is counted, not approximated. The draws are `POSTERIOR_SHARE` standard deviations wide: what a wrong hour
costs a user is small beside what thirty sends can teach, so sampling the whole posterior explores too much (Chapelle
and Li find the same of clicks). Both were chosen by simulation on three kinds of people, see benchmarks.

References
----------
Agrawal, Goyal, 2013: Thompson Sampling for Contextual Bandits with Linear Payoffs.
Chapelle, Li, 2011: An Empirical Evaluation of Thompson Sampling, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

HARMONICS: Final = 2
SIZE: Final = 1 + 2 * HARMONICS
PRIOR_DEVIATIONS: Final = (0.5, 0.5, 0.5, 0.25, 0.25)
DRAWS: Final = 32
POSTERIOR_SHARE: Final = 0.3
_PRIMES: Final = (2, 3, 5, 7, 11)

Vector = list[float]


def _basis(hour: int) -> tuple[float, ...]:
    angle = math.tau * (hour + 0.5) / 24
    waves = [(math.cos(n * angle), math.sin(n * angle)) for n in range(1, HARMONICS + 1)]
    return (1.0, *(part for wave in waves for part in wave))


BASIS: Final = tuple(_basis(hour) for hour in range(24))


def _halton(n: int, base: int) -> float:
    """The n-th number of van der Corput's sequence, in (0, 1)."""
    value, scale = 0.0, 1.0
    while n:
        scale /= base
        n, digit = divmod(n, base)
        value += digit * scale
    return value


_NORMALS: Final = tuple(
    tuple(NormalDist().inv_cdf(_halton(n, base)) for base in _PRIMES) for n in range(1, DRAWS // 2 + 1)
)
"""Half of the draws, quasi-random; the other half are their opposites."""


def shares_of_best(
    sends: Mapping[int, int],
    opens: Mapping[int, int],
    rate: float,
    curve: Sequence[float],
    hours: Sequence[int],
    tired: Sequence[float],
) -> list[float]:
    """The probability with which each slot is drawn: in how many of the curves it is the best.

    Parameters
    ----------
    sends, opens
        The user's matured sends, and those of them that were opened, by hour of the week.
    rate
        The user's mean open rate, in (0, 1).
    curve
        The global response by hour of the week, relative to its mean, shape (168,).
    hours
        The slots' hours of the week; of equal ones the first wins.
    tired
        What each slot is worth less for now, relative to the mean rate.

    Returns
    -------
    list
        As long as `hours`, multiples of 1 / `DRAWS` that sum to 1.
    """
    factor, target = _posterior(sends, opens, rate, curve)
    centre = _back(factor, _forward(factor, target))
    rows = [tuple(curve[hour] * part for part in BASIS[hour % 24]) for hour in hours]
    middle = [curve[hour] + along - less for hour, along, less in zip(hours, _along(centre, rows), tired, strict=True)]
    counts = [0] * len(hours)
    for normals in _NORMALS:
        aside = _along(_back(factor, [POSTERIOR_SHARE * number for number in normals]), rows)
        above = [one + other for one, other in zip(middle, aside, strict=True)]
        below = [one - other for one, other in zip(middle, aside, strict=True)]
        counts[above.index(max(above))] += 1
        counts[below.index(max(below))] += 1
    return [count / DRAWS for count in counts]


def _along(theta: Sequence[float], rows: Sequence[Sequence[float]]) -> Vector:
    a, b, c, d, e = theta
    return [a * v + b * w + c * x + d * y + e * z for v, w, x, y, z in rows]


def _posterior(
    sends: Mapping[int, int], opens: Mapping[int, int], rate: float, curve: Sequence[float]
) -> tuple[list[Vector], Vector]:
    """Cholesky's factor (lower) of theta's precision, and precision times mean."""
    precision = [[0.0] * SIZE for _ in range(SIZE)]
    target = [0.0] * SIZE
    for at, deviation in enumerate(PRIOR_DEVIATIONS):
        precision[at][at] = deviation**-2
    trust = rate / (1.0 - rate)  # of one send: the inverse variance of open / rate
    for hour, number in sends.items():
        level = curve[hour]
        x = [level * part for part in BASIS[hour % 24]]
        excess = trust * (opens.get(hour, 0) / rate - number * level)
        weight = trust * number
        for row, value in enumerate(x):
            target[row] += value * excess
            line, scaled = precision[row], weight * value
            for column in range(row + 1):
                line[column] += scaled * x[column]
    return _cholesky(precision), target


def _cholesky(matrix: list[Vector]) -> list[Vector]:
    """The lower factor of a positive definite matrix, of which the lower triangle is read."""
    factor = [[0.0] * SIZE for _ in range(SIZE)]
    for row in range(SIZE):
        for column in range(row + 1):
            left = matrix[row][column] - sum(factor[row][at] * factor[column][at] for at in range(column))
            factor[row][column] = math.sqrt(left) if row == column else left / factor[column][column]
    return factor


def _forward(factor: list[Vector], b: Sequence[float]) -> Vector:
    """Solve L x = b."""
    x: Vector = []
    for row in range(SIZE):
        x.append((b[row] - sum(factor[row][at] * x[at] for at in range(row))) / factor[row][row])
    return x


def _back(factor: list[Vector], b: Sequence[float]) -> Vector:
    """Solve Lᵀ x = b."""
    x = [0.0] * SIZE
    for row in reversed(range(SIZE)):
        x[row] = (b[row] - sum(factor[at][row] * x[at] for at in range(row + 1, SIZE))) / factor[row][row]
    return x
