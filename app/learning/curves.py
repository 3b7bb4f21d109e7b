"""The serving side of the mixed model: one table look-up a number, one addition an indicator, no NumPy.

A mixture of models that are linear in log-odds is linear in log-odds. So however many experts the learner trains, what
is served is one curve a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.learning.calibration import Curve, apply_curve
from app.learning.logistic import VALUE_MAX, sigmoid
from app.learning.scaling import Z_MAX

KNOTS: Final = 9
"""Knots of a number's curve: at -4, -3, ... 4 standard deviations from its mean."""
LAST: Final = KNOTS - 1

Table = tuple[float, float, tuple[float, ...]]
"""(low, knots a unit, log-odds at each knot)."""
Cross = tuple[str, str, tuple[tuple[float, ...], ...]]
"""Two numbers by name and the log-odds at each pair of knots, bilinear between."""


class FrozenCurves:
    """An additive model: a piecewise linear curve for each number, a weight for each indicator, some crosses.

    Parameters
    ----------
    version
        The snapshot's version.
    bias
        Log-odds where every feature is missing.
    tables, weights, crosses
        Of numbers, of indicators (names with ``=``), of pairs of numbers.
    curve
        Isotonic calibration on top, or None.

    Examples
    --------
    >>> model = FrozenCurves(1, -1.0, {}, {"c=cart": 1.0})
    >>> model.open_probability({"c=cart": 1.0})
    0.5
    """

    __slots__ = ("bias", "crosses", "curve", "tables", "version", "weights")

    def __init__(
        self,
        version: int,
        bias: float,
        tables: Mapping[str, Table],
        weights: Mapping[str, float],
        crosses: tuple[Cross, ...] = (),
        curve: Curve | None = None,
    ) -> None:
        self.version = version
        self.bias = bias
        self.tables = dict(tables)
        self.weights = dict(weights)
        self.crosses = crosses
        self.curve = curve

    def open_probability(self, features: Mapping[str, float]) -> float:
        """P(open) in (0, 1). A feature that the model does not know, or that counts as missing, adds nothing."""
        logit = self.bias
        tables, weights = self.tables, self.weights
        given = features if isinstance(features, dict) else dict(features)
        for name, value in given.items():
            table = tables.get(name)
            if table is not None:
                low, scale, knots = table
                at = (value - low) * scale
                if 0.0 <= at < LAST:
                    k = int(at)
                    left = knots[k]
                    logit += left + (at - k) * (knots[k + 1] - left)
                elif -VALUE_MAX <= value <= VALUE_MAX:
                    logit += knots[0] if at < 0.0 else knots[LAST]
            else:
                weight = weights.get(name)
                if weight is not None and -VALUE_MAX <= value <= VALUE_MAX:
                    logit += weight * (value if -Z_MAX <= value <= Z_MAX else min(max(value, -Z_MAX), Z_MAX))
        if self.crosses:
            logit += sum(self._crossed(features).values())
        if self.curve is not None:
            logit = apply_curve(self.curve, logit)
        return sigmoid(logit)

    def explain_one(self, features: Mapping[str, float]) -> dict[str, float]:
        """Contribution of each feature in log-odds; with ``bias`` and ``calibration`` they sum to the logit."""
        shares = {}
        for name, value in features.items():
            if not -VALUE_MAX <= value <= VALUE_MAX:
                continue
            if name in self.tables:
                low, scale, knots = self.tables[name]
                k, part = _place((value - low) * scale)
                share = knots[k] + part * (knots[k + 1] - knots[k])
            else:
                share = self.weights.get(name, 0.0) * min(max(value, -Z_MAX), Z_MAX)
            if share:
                shares[name] = share
        shares |= self._crossed(features)
        shares["bias"] = self.bias
        if self.curve is not None:
            logit = sum(shares.values())
            shares["calibration"] = apply_curve(self.curve, logit) - logit
        return shares

    def _crossed(self, features: Mapping[str, float]) -> dict[str, float]:
        result = {}
        for a, b, grid in self.crosses:
            x, y = features.get(a), features.get(b)
            if x is None or y is None or not -VALUE_MAX <= x <= VALUE_MAX or not -VALUE_MAX <= y <= VALUE_MAX:
                continue
            low, scale, _knots = self.tables[a]
            i, f = _place((x - low) * scale)
            low, scale, _knots = self.tables[b]
            j, g = _place((y - low) * scale)
            result[f"{a} x {b}"] = (1.0 - f) * ((1.0 - g) * grid[i][j] + g * grid[i][j + 1]) + f * (
                (1.0 - g) * grid[i + 1][j] + g * grid[i + 1][j + 1]
            )
        return result


def _place(at: float) -> tuple[int, float]:
    """The knot to the left and the way to the next, in [0, 1]."""
    at = min(max(at, 0.0), float(LAST))
    k = min(int(at), LAST - 1)
    return k, at - k
