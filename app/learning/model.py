"""The open model: River's logistic regression, with scaling, calibration and a bounded memory around it.

    features -> scale numbers -> LogisticRegression (AdaGrad) -> Platt calibration -> P(open)

Why this and not a tree: scoring costs two microseconds, each contribution can be shown, the state is a page of plain
numbers, and a campaign seen for the first time starts from what all users do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec
from river import linear_model, optim, utils

from app.learning.logistic import ALONE, FASTER, capped_weight, sigmoid
from app.learning.open_state import BIAS, FTRL, KIND, Config, OpenState, fold_terms, read_state, untaught
from app.learning.scaling import Scaler
from app.learning.scorer import FrozenModel


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

    kind: ClassVar[str] = KIND

    def __init__(self, config: Config | None = None) -> None:
        self._build(untaught(config or Config(), self.kind))

    def _build(self, state: OpenState) -> None:
        self.config = state.config
        self.examples = state.examples
        self._scaler = Scaler(state.scaler)
        self._slope, self._offset = state.slope, state.offset
        self._regression = self._regress(state.weights, state.evidence, state.dual)

    def _regress(self, weights: dict[str, float], evidence: dict[str, float], _dual: dict[str, float]) -> Any:
        """River's regression with these weights; its own intercept is off, the bias is a feature."""
        optimizer = _AdaGrad(self.config.rate)
        optimizer.g2.update(evidence)
        return _regression(optimizer, weights)

    def _memory(self) -> tuple[dict[str, float], dict[str, float]]:
        """What the optimiser remembers: (evidence, dual)."""
        return dict(self._regression.optimizer.g2), {}

    def learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> None:
        """See `Model.learn_one`."""
        self.predict_learn_one(x, y, w)

    def predict_learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> float:
        """See `Model.predict_learn_one`.

        The features are scaled once, by the moments before this example, for the prediction and for the step: scaling
        is the larger part of the cost.
        """
        w = capped_weight(w)
        if not w:
            return self.predict_proba_one(x)
        self.examples += 1
        z = self._scaler.transform_learn(x)
        z[BIAS] = 1.0
        logit = float(self._regression._raw_dot_one(z))
        p = sigmoid(self._slope * logit + self._offset)
        step = self.config.calibration_rate * w * (p - y)
        self._slope -= step * min(max(logit, -4.0), 4.0)
        self._offset -= step
        self._regression.learn_one(z, bool(y), w)
        if len(self._regression._weights) > self.config.features_max:
            self.shrink()
        return p

    def _inputs(self, x: Mapping[str, float]) -> dict[str, float]:
        z = self._scaler.transform(x)
        z[BIAS] = 1.0
        return z

    def shrink(self) -> bool:
        """See `Model.shrink`. Evidence is the sum of squared gradients; the bias stays."""
        evidence, dual = self._memory()
        weights = self._regression.weights
        if len(weights) <= 1:
            return False
        keep = sorted(weights, key=lambda name: (name != BIAS, -evidence.get(name, 0.0), name))
        names = set(keep[: max(min(len(keep), self.config.features_max) * 3 // 4, 1)])
        self._scaler.state = {name: m for name, m in self._scaler.state.items() if name in names}
        self._regression = self._regress(
            *({name: value for name, value in kept.items() if name in names} for kept in (weights, evidence, dual))
        )
        return True

    def learn_faster(self, name: str = "") -> None:
        """See `Model.learn_faster`."""
        evidence, dual = self._memory()
        faster = _faster(evidence, name)
        self._regression = self._regress(dict(self._regression.weights), faster, dual)

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
        return fold_terms(self._regression.weights, self._scaler, self._slope, self._offset, version)

    def to_bytes(self) -> bytes:
        """See `Model.to_bytes`."""
        evidence, dual = self._memory()
        return msgspec.json.encode(
            OpenState(
                kind=self.kind,
                config=self.config,
                examples=self.examples,
                weights=self._regression.weights,
                evidence=evidence,
                scaler=self._scaler.state,
                slope=self._slope,
                offset=self._offset,
                dual=dual,
            )
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises `BadModel` for anything that `to_bytes` of a version we read did not write."""
        model = cls.__new__(cls)
        model._build(read_state(raw, cls.kind))
        return model


class FtrlModel(OpenModel):
    """The same pipeline, learned by River's FTRL-Proximal: rare features are shrunk, which suits many indicators.

    The bias alone keeps the prior: FTRL derives each weight from its memory, so the prior is written there.

    References
    ----------
    McMahan et al., 2013: Ad Click Prediction: a View from the Trenches, algorithm 1.
    """

    kind: ClassVar[str] = FTRL

    def _regress(self, weights: dict[str, float], evidence: dict[str, float], dual: dict[str, float]) -> Any:
        optimizer = optim.FTRLProximal(alpha=self.config.rate, beta=1.0, l1=0.0, l2=1.0)
        if BIAS not in dual:
            dual = {BIAS: -weights[BIAS] * (optimizer.beta / optimizer.alpha + optimizer.l2)}
        optimizer.n.update(evidence)
        optimizer.z.update(dual)
        return _regression(optimizer, weights)

    def learn_faster(self, name: str = "") -> None:
        """See `Model.learn_faster`. The dual is what gives the same weights with the evidence that is left."""
        evidence, dual = self._memory()
        optimizer = self._regression.optimizer

        def scale(of: float) -> float:
            return float((optimizer.beta + math.sqrt(of)) / optimizer.alpha + optimizer.l2)

        faster = _faster(evidence, name)
        dual = {name: z * scale(faster.get(name, 0.0)) / scale(evidence.get(name, 0.0)) for name, z in dual.items()}
        self._regression = self._regress(dict(self._regression.weights), faster, dual)

    def _memory(self) -> tuple[dict[str, float], dict[str, float]]:
        optimizer = self._regression.optimizer
        return dict(optimizer.n), {name: float(value) for name, value in optimizer.z.items()}


class _AdaGrad(optim.AdaGrad):  # type: ignore[misc]  # River has no types
    """River's AdaGrad with the learning rate looked up once a step instead of once a weight; the same bits."""

    def _step_with_dict(self, w: Any, g: Any) -> Any:
        g2, rate, eps = self.g2, self.learning_rate, self.eps
        for name, gradient in g.items():
            total = g2[name] = g2[name] + gradient**2
            w[name] -= rate / (total + eps) ** 0.5 * gradient
        return w


def _faster(evidence: dict[str, float], only: str) -> dict[str, float]:
    """The evidence that is left after a drift, of all features or of one."""
    if only:
        return {name: value * (ALONE if name == only else 1.0) for name, value in evidence.items()}
    return {name: value * FASTER for name, value in evidence.items()}


def _regression(optimizer: Any, weights: dict[str, float]) -> Any:
    regression = linear_model.LogisticRegression(optimizer, intercept_lr=0.0)
    regression._weights = utils.VectorDict(weights, regression.initializer)
    regression.optimizer.n_iterations = 0
    return regression
