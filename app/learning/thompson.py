"""The probability that each variant is the best one: what Thompson sampling would draw it with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

NODES: Final = 96


@lru_cache(maxsize=1)
def _quadrature() -> tuple[Any, Any]:
    """Nodes and weights on [0, 1]; finding them takes longer than using them."""
    import numpy as np  # noqa: PLC0415

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2


def probabilities_of_best(counts: Sequence[tuple[int, int]]) -> list[float]:
    """P(variant has the highest rate) under independent Beta posteriors with uniform priors.

    Thompson sampling draws a rate for each variant from its posterior and shows the highest: it shows variant v with
    exactly this probability. Computed and not drawn, it is the propensity, and it needs no dice.

    For each v the integral of the product of the other posteriors' distribution functions over v's posterior is taken
    in v's quantiles, by Gauss-Legendre quadrature.

    Parameters
    ----------
    counts
        Opens and silences of each variant.

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
