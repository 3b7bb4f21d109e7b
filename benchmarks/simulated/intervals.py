"""A figure over seeds: its mean, and the t interval of that mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % interval of the mean of independent runs.

    Examples
    --------
    >>> over_seeds([1.0, 1.0, 1.0])
    {'mean': 1.0, 'low': 1.0, 'high': 1.0}
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean, "low": mean, "high": mean}
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    half = float(stats.t.isf(0.025, len(values) - 1)) * spread
    return {"mean": round(mean, 5), "low": round(mean - half, 5), "high": round(mean + half, 5)}
