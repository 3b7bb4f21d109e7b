"""The state of the mixed model, and what serving needs of it: plain numbers, no NumPy, no River."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from app.learning.calibration import CalibrationState
from app.learning.contract import BadModel, decode_state
from app.learning.curves import KNOTS, FrozenCurves, Table
from app.learning.scaling import DEVIATION_MIN, Z_MAX

KIND: Final = "open-mix"
STATE_VERSION: Final = 1
EVIDENCE_MIN: Final = 1e-8
ROWS: Final = 1 + KNOTS
"""Weights of a number: one for its standardised value, then one a knot."""

HISTORY: Final = (
    "open_logit",
    "open_slow_logit",
    "open_middle_logit",
    "open_fast_logit",
    "open_run_log",
    "open_month_logit",
    "open_quarter_logit",
    "click_quarter_logit",
    "matured_log",
    "ignored_log",
    "clicked_log",
    "since_open_log_h",
    "c=",
)
"""What a user answered so far, and the campaign."""


class Expert(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One logistic regression of the mixture.

    Parameters
    ----------
    name
        For people.
    names
        Features that it sees (empty: all); a name that ends with ``=`` stands for all that begin so.
    curves
        Whether a number has a curve, or a slope only.
    crosses
        Whether it sees pairs of numbers.
    share
        What it is of the mixture before the first example, relative to the others.
    without
        Features that it does not see, whatever `names` says.
    """

    name: str
    names: tuple[str, ...] = ()
    curves: bool = False
    crosses: bool = False
    share: float = 1.0
    without: tuple[str, ...] = ()

    def sees(self, name: str) -> bool:
        """Whether the feature is one of its own."""
        if name in self.without:
            return False
        return not self.names or name in self.names or ("=" in name and name[: name.index("=") + 1] in self.names)


EXPERTS: Final = (
    Expert(name="linear", share=8.0),
    Expert(name="curves", curves=True, without=("since_send_log_h",)),
    Expert(name="history", names=HISTORY, curves=True),
)

GENERAL: Final = (Expert(name="linear", share=8.0), Expert(name="curves", curves=True))
"""For whatever is not about answers."""


class MixConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is chosen, not learned.

    Parameters
    ----------
    prior
        P(open) before the first example.
    rate, indicator_rate, curve_rate
        AdaGrad's step size of slopes, of indicators, and of curves and crosses. A campaign's own weight has to be
        found in the few days it runs, or the slopes learn it.
    curve_floor, head_start
        Evidence that a knot starts with, and a slope or an indicator: it keeps their first steps small.
    mix_rate
        Step size of the mixture's weights (exponentiated gradient).
    calibration_rate
        See `app.learning.calibration.Calibrator`.
    crosses
        How many numbers are crossed pairwise: the first ones met.
    features_max
        Features kept; beyond it the ones with least evidence go.
    """

    prior: float = 0.15
    rate: float = 0.05
    indicator_rate: float = 0.1
    curve_rate: float = 0.02
    curve_floor: float = 1.0
    head_start: float = 0.0
    mix_rate: float = 0.02
    calibration_rate: float = 0.003
    crosses: int = 0
    features_max: int = 4096
    experts: tuple[Expert, ...] = EXPERTS


SLOW_START: Final = MixConfig(head_start=10.0)
"""For models that learn a few thousand examples in all, and are not told of campaigns that come and go."""


class MixState(msgspec.Struct, kw_only=True):
    """All that a mixed model knows. Of each feature, pair or bias: [weight of each expert in turn, row by row].

    Parameters
    ----------
    shares
        The mixture's weights, which sum to 1.
    moments
        Number to [count, mean, variance].
    weights, evidence
        Feature to its rows (one of an indicator, `ROWS` of a number), flattened; AdaGrad's sums alike.
    crossed
        Pairs of numbers and their rows, KNOTS * KNOTS each.
    """

    kind: str = KIND
    version: int = STATE_VERSION
    config: MixConfig
    examples: int
    shares: list[float]
    bias: list[float]
    bias_evidence: list[float]
    moments: dict[str, list[float]]
    weights: dict[str, list[float]]
    evidence: dict[str, list[float]]
    crossed: list[tuple[str, str, list[float], list[float]]]
    calibration: CalibrationState


def untaught(config: MixConfig) -> MixState:
    """The state before the first example: the prior, whatever the features."""
    experts = len(config.experts)
    total = sum(expert.share for expert in config.experts)
    prior = math.log(config.prior / (1.0 - config.prior))
    return MixState(
        config=config,
        examples=0,
        shares=[expert.share / total for expert in config.experts],
        bias=[prior] * experts,
        bias_evidence=[EVIDENCE_MIN] * experts,
        moments={},
        weights={},
        evidence={},
        crossed=[],
        calibration=CalibrationState(),
    )


def read_state(raw: bytes) -> MixState:
    """The state that `MixModel.to_bytes` wrote. Raises `BadModel` for anything else."""
    state = decode_state(raw, MixState, KIND, STATE_VERSION, "a mixed model")
    check_state(state)
    return state


def check_state(state: MixState) -> None:
    """Raises `BadModel` when the parts do not fit together."""
    experts = len(state.config.experts)
    whole = all(
        len(rows) == experts * (1 if "=" in name else ROWS) == len(state.evidence.get(name, ()))
        and ("=" in name or len(state.moments.get(name, ())) == 3)
        for name, rows in state.weights.items()
    )
    crossed = all(
        len(rows) == len(sums) == experts * KNOTS * KNOTS and {a, b} <= state.moments.keys()
        for a, b, rows, sums in state.crossed
    )
    if not whole or not crossed or not experts == len(state.shares) == len(state.bias) == len(state.bias_evidence):
        raise BadModel("the state's parts do not fit together")


def bounds(moments: list[float]) -> tuple[float, float]:
    """(mean, deviation) of a number; deviation 0 while its spread is not known."""
    _count, mean, variance = moments
    deviation = math.sqrt(variance) if variance > 0.0 else 0.0
    return mean, deviation if deviation >= DEVIATION_MIN else 0.0


def freeze(state: MixState, version: int) -> FrozenCurves:
    """Experts, mixture, scaling and calibration in one curve a number and one weight an indicator."""
    slope, offset = state.calibration.slope, state.calibration.offset
    shares = [slope * share for share in state.shares]
    experts = len(shares)

    def mixed(rows: list[float], at: int) -> float:
        return sum(share * rows[at * experts + e] for e, share in enumerate(shares))

    tables: dict[str, Table] = {}
    weights: dict[str, float] = {}
    for name, rows in state.weights.items():
        if "=" in name:
            weights[name] = mixed(rows, 0)
            continue
        mean, deviation = bounds(state.moments[name])
        if deviation:
            line = mixed(rows, 0)
            knots = tuple(line * (k - Z_MAX) + mixed(rows, 1 + k) for k in range(KNOTS))
            tables[name] = (mean - Z_MAX * deviation, 1.0 / deviation, knots)
    crosses = tuple(
        (a, b, tuple(tuple(mixed(rows, i * KNOTS + j) for j in range(KNOTS)) for i in range(KNOTS)))
        for a, b, rows, _sums in state.crossed
        if a in tables and b in tables
    )
    calibration = state.calibration
    curve = (list(calibration.knots_in), list(calibration.knots_out)) if calibration.isotonic else None
    return FrozenCurves(version, mixed(state.bias, 0) + offset, tables, weights, crosses, curve)
