"""Online standardisation of numbers; indicators pass through.

River's StandardScaler centres everything it is given: a sparse indicator that is always 1 when present has variance
0 there and becomes 0. So only names without ``=`` are scaled. A missing number contributes 0, which is its mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from app.learning.logistic import VALUE_MAX

Z_MAX: Final = 4.0
"""Standardised values are clipped here: one outlier cannot move a weight far."""
COUNT_MAX: Final = 50_000
"""The mean's memory: beyond this many examples it forgets exponentially, so that it follows a drifting feature."""
DEVIATION_MIN: Final = 1e-6

State = dict[str, list[float]]

_sqrt = math.sqrt


class Scaler:
    """Running mean and variance by feature name (Welford's recurrence, with a bounded count).

    Parameters
    ----------
    state
        Name to [count, mean, variance].

    References
    ----------
    Welford, 1962: Note on a Method for Calculating Corrected Sums of Squares and Products.
    Finch, 2009: Incremental Calculation of Weighted Mean and Variance, eqs. 124 and 143.
    """

    __slots__ = ("state",)

    def __init__(self, state: State | None = None) -> None:
        self.state: State = {} if state is None else state

    def learn(self, x: Mapping[str, float]) -> None:
        """Take the numbers of `x` into the running moments."""
        state = self.state
        for name, value in x.items():
            if "=" in name or not -VALUE_MAX <= value <= VALUE_MAX:
                continue
            moments = state.get(name)
            if moments is None:
                state[name] = [1.0, value, 0.0]
                continue
            count = moments[0] = min(moments[0] + 1.0, COUNT_MAX)
            delta = value - moments[1]
            mean = moments[1] = moments[1] + delta / count
            moments[2] += (delta * (value - mean) - moments[2]) / count

    def transform_learn(self, x: Mapping[str, float]) -> dict[str, float]:
        """`transform`, then `learn`, in one pass: the values are those that `transform` gives before learning."""
        result = {}
        state = self.state
        for name, value in x.items():
            if not -VALUE_MAX <= value <= VALUE_MAX:
                continue
            if "=" in name:
                result[name] = value if -Z_MAX <= value <= Z_MAX else min(max(value, -Z_MAX), Z_MAX)
                continue
            moments = state.get(name)
            if moments is None:
                state[name] = [1.0, value, 0.0]
                continue
            count, mean, variance = moments
            delta = value - mean
            if variance > 0.0:
                deviation = _sqrt(variance)
                if deviation >= DEVIATION_MIN:
                    z = delta / deviation
                    result[name] = z if -Z_MAX <= z <= Z_MAX else min(max(z, -Z_MAX), Z_MAX)
            if count < COUNT_MAX:
                count += 1.0
            mean += delta / count
            moments[0] = count
            moments[1] = mean
            moments[2] = variance + (delta * (value - mean) - variance) / count
        return result

    def transform(self, x: Mapping[str, float]) -> dict[str, float]:
        """Standardised and clipped numbers, clipped indicators; what is missing or not known yet is left out."""
        result = {}
        get = self.bounds
        for name, value in x.items():
            slope, mean, low, high = get(name)
            if slope and -VALUE_MAX <= value <= VALUE_MAX:
                result[name] = (min(max(value, low), high) - mean) * slope
        return result

    def bounds(self, name: str) -> tuple[float, float, float, float]:
        """(slope, mean, low, high): the transform of one feature is `(clip(value, low, high) - mean) * slope`.

        Slope is 0 while a number's spread is not known.
        """
        if "=" in name:
            return 1.0, 0.0, -Z_MAX, Z_MAX
        moments = self.state.get(name)
        if moments is None:
            return 0.0, 0.0, 0.0, 0.0
        _count, mean, variance = moments
        deviation = math.sqrt(variance) if variance > 0.0 else 0.0
        if deviation < DEVIATION_MIN:
            return 0.0, mean, mean, mean
        return 1.0 / deviation, mean, mean - Z_MAX * deviation, mean + Z_MAX * deviation
