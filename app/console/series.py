"""Bounded series for charts, and what is computed from a histogram or from a few counts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

POINTS_MAX: Final = 180
_Z_95: Final = 1.959964


class Rate:
    """The increase a second of a counter that may start again at 0, over the last `over` readings."""

    def __init__(self, over: int = 5) -> None:
        self._readings: deque[tuple[float, float]] = deque(maxlen=over + 1)

    def take(self, at_s: float, total: float) -> float | None:
        """A reading; gives the rate, None before the second one."""
        if self._readings and total < self._readings[-1][1]:
            self._readings.clear()  # a process restarted
        self._readings.append((at_s, total))
        (from_s, before), (to_s, now) = self._readings[0], self._readings[-1]
        return (now - before) / (to_s - from_s) if to_s > from_s else None


class Window:
    """The increase of a histogram's buckets over the last `over` readings."""

    def __init__(self, over: int = 10) -> None:
        self._readings: deque[Mapping[float, float]] = deque(maxlen=over + 1)

    def take(self, buckets: Mapping[float, float]) -> dict[float, float]:
        """Cumulative counts by upper bound; gives those of the window."""
        if self._readings and any(buckets.get(bound, 0.0) < n for bound, n in self._readings[-1].items()):
            self._readings.clear()
        self._readings.append(dict(buckets))
        first = self._readings[0] if len(self._readings) > 1 else {}
        return {bound: number - first.get(bound, 0.0) for bound, number in buckets.items()}


def histogram_quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """A quantile by linear interpolation in its bucket, as Prometheus does; None without observations.

    Parameters
    ----------
    buckets
        Upper bound (the last is infinite) to the number of observations up to it.

    Examples
    --------
    >>> histogram_quantile(0.5, {0.1: 10, 0.2: 20, float("inf"): 20})
    0.1
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, below, lower = share * total, 0.0, 0.0
    for bound in bounds:
        number = buckets[bound]
        if number >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (number - below) if number > below else bound
        below, lower = number, bound
    return lower


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate; (0, 1) without a trial.

    `app.experiments.fixed.wilson` is the same for any level, and brings SciPy, which the console can do without.

    References
    ----------
    Wilson, 1927: Probable inference, the law of succession, and statistical inference.
    """
    if not trials:
        return 0.0, 1.0
    rate, z2 = successes / trials, _Z_95 * _Z_95
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration(examples: Sequence[tuple[float, int]], bins: int = 10) -> list[dict[str, float]]:
    """Predicted against observed rates, in bins of equally many examples.

    Parameters
    ----------
    examples
        Score and label (0 or 1).

    Returns
    -------
    list
        One dict a bin: `predicted` (mean score), `observed` (share of ones), `low`, `high` (its Wilson interval),
        `examples`.
    """
    ordered = sorted(examples)
    size = max(1, math.ceil(len(ordered) / bins))
    found = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        ones = sum(label for _, label in part)
        low, high = wilson(ones, len(part))
        found.append(
            {
                "predicted": sum(score for score, _ in part) / len(part),
                "observed": ones / len(part),
                "low": low,
                "high": high,
                "examples": len(part),
            }
        )
    return found


def auc(examples: Sequence[tuple[float, int]]) -> float | None:
    """Area under the ROC curve by ranks, ties counted half; None without one of each label."""
    ones = sum(label for _, label in examples)
    zeros = len(examples) - ones
    if not ones or not zeros:
        return None
    ordered = sorted(examples)
    won, below, at = 0.0, 0, 0
    while at < len(ordered):
        score, tied = ordered[at][0], [0, 0]
        while at < len(ordered) and ordered[at][0] == score:
            tied[ordered[at][1]] += 1
            at += 1
        won += tied[1] * (below + tied[0] / 2)
        below += tied[0]
    return won / (ones * zeros)
