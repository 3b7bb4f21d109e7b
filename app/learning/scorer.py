"""The serving side: one dictionary look-up and one multiplication a feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from app.learning.logistic import VALUE_MAX, sigmoid

Term = tuple[float, float, float, float]

PRIOR_VERSION: Final = 0
"""The version that a decision carries before any example was learned."""


class Frozen(Protocol):
    """What every model serves: an immutable copy that needs neither River nor NumPy."""

    version: int

    def open_probability(self, features: Mapping[str, float]) -> float:
        """P(y = 1), in (0, 1)."""
        ...

    def explain_one(self, features: Mapping[str, float]) -> dict[str, float]:
        """Contribution of each feature in log-odds; they sum to the logit of the probability."""
        ...


class FrozenModel:
    """A linear model with scaling and calibration folded into one term a feature.

    Parameters
    ----------
    version
        The snapshot's version.
    bias
        Log-odds of an example whose features are all unknown or at their mean.
    terms
        Name to (weight, mean, low, high): a feature adds `weight * (clip(value, low, high) - mean)`.

    Examples
    --------
    >>> model = FrozenModel(1, 0.0, {"c=cart": (1.0, 0.0, -4.0, 4.0)})
    >>> model.open_probability({"c=unknown": 1.0})
    0.5
    >>> round(model.open_probability({"c=cart": 1.0}), 3)
    0.731
    """

    __slots__ = ("bias", "terms", "version")

    def __init__(self, version: int, bias: float, terms: Mapping[str, Term]) -> None:
        self.version = version
        self.bias = bias
        self.terms = dict(terms)

    def open_probability(self, features: Mapping[str, float]) -> float:
        """P(open) in (0, 1). A feature that the model does not know, or that counts as missing, adds nothing."""
        logit = self.bias
        get = self.terms.get
        for name, value in features.items():
            term = get(name)
            if term is None:
                continue
            weight, mean, low, high = term
            if low <= value <= high:
                logit += weight * (value - mean)
            elif -VALUE_MAX <= value <= VALUE_MAX:
                logit += weight * ((low if value < low else high) - mean)
        return sigmoid(logit)

    def explain_one(self, features: Mapping[str, float]) -> dict[str, float]:
        """Contribution of each feature in log-odds; with ``bias`` they sum to the logit of `open_probability`.

        Features that add nothing are left out.

        Examples
        --------
        >>> FrozenModel(1, -1.0, {"orders_log": (0.5, 2.0, 0.0, 9.0)}).explain_one({"orders_log": 4.0, "d=ios": 1.0})
        {'bias': -1.0, 'orders_log': 1.0}
        """
        shares = {"bias": self.bias}
        for name, value in features.items():
            term = self.terms.get(name)
            if term is not None and -VALUE_MAX <= value <= VALUE_MAX:
                weight, mean, low, high = term
                if share := weight * (min(max(value, low), high) - mean):
                    shares[name] = share
        return shares
