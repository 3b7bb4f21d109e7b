"""The probability that each variant is the best one: what Thompson sampling would draw it with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

NODES: Final = 96
SIZE_MAX: Final = 1e12
"""Beyond it the quantiles of a Beta distribution lose their digits."""


@lru_cache(maxsize=1)
def _quadrature() -> tuple[Any, Any]:
    """Nodes and weights on [0, 1]; finding them takes longer than using them."""
    import numpy as np  # noqa: PLC0415

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2


def probabilities_of_best(counts: Sequence[tuple[float, float]]) -> list[float]:
    """P(variant has the highest rate) under independent Beta posteriors with uniform priors.

    Thompson sampling draws a rate for each variant from its posterior and shows the highest: it shows variant v with
    exactly this probability. Computed and not drawn, it is the propensity, and it needs no dice.

    For each v the integral of the product of the other posteriors' distribution functions over v's posterior is taken
    in v's quantiles, by Gauss-Legendre quadrature.

    Parameters
    ----------
    counts
        Opens and silences of each variant, or what stands for them (`pseudo_counts`).

    Returns
    -------
    list
        Probabilities, summing to 1.

    References
    ----------
    Thompson, 1933: On the likelihood that one unknown probability exceeds another in view of the evidence of two
    samples.

    Examples
    --------
    >>> [round(share, 3) for share in probabilities_of_best([(5, 5), (5, 5)])]
    [0.5, 0.5]
    """
    import numpy as np  # noqa: PLC0415 - the learner's, not the workers'
    from scipy import special  # noqa: PLC0415

    if len(counts) < 2:
        return [1.0] * len(counts)
    quantiles, weights = _quadrature()
    a = np.array([opens + 1.0 for opens, _ in counts])
    b = np.array([silences + 1.0 for _, silences in counts])
    rates = special.betaincinv(a[:, None], b[:, None], quantiles[None, :])
    below = special.betainc(a[None, :, None], b[None, :, None], rates[:, None, :])
    own = np.arange(len(counts))
    below[own, own, :] = 1.0
    shares = (below.prod(axis=1) * weights).sum(axis=1)
    return [float(share) for share in shares / shares.sum()]


def pseudo_counts(rewards: int, total: float, squares: float, penalty: float) -> tuple[float, float]:
    """Opens and silences whose posterior has the mean and the variance of a mean reward's.

    Rewards in [-penalty, 1] are moved to [0, 1], which leaves their order alone; a Beta posterior is then matched to
    the mean and the variance of the observations and of two more, one of the highest reward and one of none: an
    optimistic prior, so a variant that has taught nothing is tried. Of rewards that are 0 or 1 without a penalty these
    are the counts themselves. Counting a reward of 0.3 as 0.3 opens and 0.7 silences instead would take it for as noisy
    as a coin, and with a penalty nearly everything would be noise.

    Parameters
    ----------
    rewards, total, squares
        Their number, sum, and sum of squares.
    penalty
        The largest loss, 0 or more.

    Examples
    --------
    >>> [round(number, 9) for number in pseudo_counts(10, 3.0, 3.0, 0.0)]
    [3.0, 7.0]
    """
    scale = 1.0 + penalty
    nothing = penalty / scale
    moved = (total + rewards * penalty) / scale
    moved_squares = (squares + 2 * penalty * total + rewards * penalty**2) / scale**2
    seen = rewards + 2
    mean = (1.0 + nothing + moved) / seen
    variance = (1.0 + nothing**2 + moved_squares) / seen - mean**2
    size = mean * (1.0 - mean) * (seen + 1) / variance - 1.0 if variance > 0.0 else math.inf
    size = min(size, SIZE_MAX)
    return mean * size - 1.0, (1.0 - mean) * size - 1.0
