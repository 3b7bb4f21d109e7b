"""The state of the open model, and what serving needs of it: plain numbers, no River.

A worker that only serves never imports River (with SciPy it costs some 90 MB); the learner, in `app.learning.model`,
does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from app.learning.contract import BadModel, decode_state
from app.learning.scaling import Scaler, State
from app.learning.scorer import FrozenModel

KIND: Final = "open-lr"
FTRL: Final = "open-ftrl"
"""The same pipeline with FTRL-Proximal instead of AdaGrad."""
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


class OpenState(msgspec.Struct, kw_only=True):
    """All that an open model knows.

    Parameters
    ----------
    weights, evidence
        By feature name: the regression's weight, and AdaGrad's sum of squared gradients.
    scaler
        See `app.learning.scaling.Scaler`.
    slope, offset
        Platt's calibration of the regression's logit.
    dual
        By feature name: FTRL's sum of adjusted gradients (`z`); empty with AdaGrad.
    """

    kind: str = KIND
    version: int = STATE_VERSION
    config: Config
    examples: int
    weights: dict[str, float]
    evidence: dict[str, float]
    scaler: State
    slope: float
    offset: float
    dual: dict[str, float] = {}


def untaught(config: Config, kind: str = KIND) -> OpenState:
    """The state before the first example: the prior, whatever the features."""
    weights = {BIAS: math.log(config.prior / (1.0 - config.prior))}
    return OpenState(
        kind=kind, config=config, examples=0, weights=weights, evidence={}, scaler={}, slope=1.0, offset=0.0
    )


def read_state(raw: bytes, kind: str = KIND) -> OpenState:
    """The state that `to_bytes` of an open model of this kind wrote. Raises `BadModel` for anything else."""
    state = decode_state(raw, OpenState, kind, STATE_VERSION, "an open model")
    if BIAS not in state.weights:
        raise BadModel("the state has no bias")
    return state


def fold_terms(weights: Mapping[str, float], scaler: Scaler, slope: float, offset: float, version: int) -> FrozenModel:
    """Regression, scaling and calibration in one term a feature; parameters as in `OpenState`."""
    terms = {}
    for name, weight in weights.items():
        scale, mean, low, high = scaler.bounds(name)
        if scale and weight and name != BIAS:
            terms[name] = (slope * weight * scale, mean, low, high)
    return FrozenModel(version, slope * weights[BIAS] + offset, terms)
