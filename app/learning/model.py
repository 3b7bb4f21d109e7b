"""The open model: River's logistic regression, with scaling, calibration and a bounded memory around it.

    features -> scale numbers -> LogisticRegression (AdaGrad) -> Platt calibration -> P(open)

Why this and not a tree: scoring costs two microseconds, each contribution can be shown, the state is a page of plain
numbers, and a campaign seen for the first time starts from what all users do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from river import linear_model, optim, utils

from app.learning.contract import BadModel
from app.learning.logistic import capped_weight, sigmoid
from app.learning.scaling import Scaler, State
from app.learning.scorer import FrozenModel

KIND: Final = "open-lr"
STATE_VERSION: Final = 1
BIAS: Final = "bias"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What is chosen, not learned.

    Parameters
    ----------
    prior
        P(open) before the first example.
    rate
        AdaGrad's step size.
    calibration_rate
        Step size of the two calibration parameters; 0 switches calibration off.
    features_max
        Weights kept; beyond it the ones with least evidence go.
    """

    prior: float = 0.15
    rate: float = 0.05
    calibration_rate: float = 0.001
    features_max: int = 4096


class _State(msgspec.Struct, kw_only=True):
    kind: str = KIND
    version: int = STATE_VERSION
    config: Config
    examples: int
    weights: dict[str, float]
    evidence: dict[str, float]
    scaler: State
    slope: float
    offset: float


class OpenModel:
    """P(open) by online logistic regression.

    The intercept is the weight of a feature ``bias`` that is always 1, so that it adapts like any other weight.
    Calibration is Platt's `sigmoid(slope * logit + offset)`, fitted by gradient steps on the logits that the
    regression gave before it learned the example, so it corrects out-of-sample over-confidence.

    Examples
    --------
    >>> model = OpenModel(Config(prior=0.2))
    >>> round(model.predict_proba_one({}), 3)
    0.2
    >>> for _ in range(50):
    ...     model.learn_one({"c=cart": 1.0}, 1)
    >>> model.predict_proba_one({"c=cart": 1.0}) > model.predict_proba_one({"c=other": 1.0})
    True

    References
    ----------
    Duchi, Hazan, Singer, 2011: Adaptive Subgradient Methods for Online Learning and Stochastic Optimization.
    Platt, 1999: Probabilistic Outputs for Support Vector Machines.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        prior = self.config.prior
        weights = {BIAS: math.log(prior / (1.0 - prior))}
        self._build(
            _State(config=self.config, examples=0, weights=weights, evidence={}, scaler={}, slope=1.0, offset=0.0)
        )

    def _build(self, state: _State) -> None:
        self.config = state.config
        self.examples = state.examples
        self._scaler = Scaler(state.scaler)
        self._slope, self._offset = state.slope, state.offset
        self._regression = _regression(state.config, state.weights, state.evidence)

    def learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> None:
        """See `Model.learn_one`."""
        w = capped_weight(w)
        if not w:
            return
        self.examples += 1
        self._scaler.learn(x)
        z = self._inputs(x)
        logit = float(self._regression._raw_dot_one(z))
        self._calibrate(logit, y, w)
        self._regression.learn_one(z, bool(y), w)
        if len(self._regression._weights) > self.config.features_max:
            self._evict()

    def _inputs(self, x: Mapping[str, float]) -> dict[str, float]:
        z = self._scaler.transform(x)
        z[BIAS] = 1.0
        return z

    def _calibrate(self, logit: float, y: int, w: float) -> None:
        step = self.config.calibration_rate * w * (sigmoid(self._slope * logit + self._offset) - y)
        self._slope -= step * min(max(logit, -4.0), 4.0)
        self._offset -= step

    def _evict(self) -> None:
        """Forget the quarter of the weights that has least evidence (AdaGrad's sum of squared gradients)."""
        evidence = self._regression.optimizer.g2
        weights = self._regression.weights
        keep = sorted(weights, key=lambda name: (name != BIAS, -evidence.get(name, 0.0), name))
        keep = keep[: self.config.features_max * 3 // 4]
        names = set(keep)
        self._scaler.state = {name: m for name, m in self._scaler.state.items() if name in names}
        self._regression = _regression(
            self.config,
            {name: weight for name, weight in weights.items() if name in names},
            {name: value for name, value in evidence.items() if name in names},
        )

    def _logit(self, x: Mapping[str, float]) -> float:
        return self._slope * float(self._regression._raw_dot_one(self._inputs(x))) + self._offset

    def predict_proba_one(self, x: Mapping[str, float]) -> float:
        """See `Model.predict_proba_one`."""
        return sigmoid(self._logit(x))

    def explain_one(self, x: Mapping[str, float]) -> dict[str, float]:
        """See `Model.explain_one`. Features that add nothing are left out."""
        weights = self._regression.weights
        shares = {name: self._slope * weights.get(name, 0.0) * value for name, value in self._inputs(x).items()}
        shares[BIAS] += self._offset
        return {name: share for name, share in shares.items() if share or name == BIAS}

    def freeze(self, version: int) -> FrozenModel:
        """See `Model.freeze`."""
        weights = self._regression.weights
        bias = self._slope * weights.pop(BIAS) + self._offset
        terms = {}
        for name, weight in weights.items():
            slope, mean, low, high = self._scaler.bounds(name)
            if slope and weight:
                terms[name] = (self._slope * weight * slope, mean, low, high)
        return FrozenModel(version, bias, terms)

    def to_bytes(self) -> bytes:
        """See `Model.to_bytes`."""
        return msgspec.json.encode(
            _State(
                config=self.config,
                examples=self.examples,
                weights=self._regression.weights,
                evidence=dict(self._regression.optimizer.g2),
                scaler=self._scaler.state,
                slope=self._slope,
                offset=self._offset,
            )
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> OpenModel:
        """Raises `BadModel` for anything that `to_bytes` of a version we read did not write."""
        try:
            state = msgspec.json.decode(raw, type=_State)
        except msgspec.MsgspecError as exc:
            raise BadModel(f"not the state of an open model: {exc}") from exc
        if state.kind != KIND or state.version != STATE_VERSION:
            raise BadModel(f"{state.kind} version {state.version}; this build reads {KIND} version {STATE_VERSION}")
        if BIAS not in state.weights:
            raise BadModel("the state has no bias")
        model = cls.__new__(cls)
        model._build(state)
        return model


def _regression(config: Config, weights: dict[str, float], evidence: dict[str, float]) -> Any:
    """River's regression with these weights; its own intercept is off, see `OpenModel`."""
    regression = linear_model.LogisticRegression(optim.AdaGrad(config.rate), intercept_lr=0.0)
    regression._weights = utils.VectorDict(weights, regression.initializer)
    regression.optimizer.g2.update(evidence)
    regression.optimizer.n_iterations = 0
    return regression
