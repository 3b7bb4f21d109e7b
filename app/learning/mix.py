"""The mixed model: several logistic regressions that see different things, mixed by how well each does.

    features -> scale numbers -> curves -> experts (AdaGrad each) -> mixture -> calibration -> P(open)

Each expert is an additive model: a weight for each indicator, and a slope or a piecewise linear curve for each number.
A linear expert learns fastest; curves find what is not linear once there are examples enough; an expert that sees only
what the user answered is not led astray by features that stand for the age of the system. Which is right differs
between audiences and over time, so the mixture is learned.

Trees correct it in `app.learning.trees`, where they are worth their cost.
River has no mixture whose experts share one pass over the features; here they are columns of one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec
import numpy as np

from app.learning.calibration import Calibrator
from app.learning.curves import KNOTS, LAST, FrozenCurves
from app.learning.logistic import ALONE, FASTER, VALUE_MAX, capped_weight, sigmoid
from app.learning.mix_state import EVIDENCE_MIN, ROWS, MixConfig, MixState, freeze, read_state, untaught
from app.learning.scaling import COUNT_MAX, DEVIATION_MIN, Z_MAX

LAYOUTS_MAX: Final = 512
NAMES_MAX: Final = 256
"""The layout of an example with more features than this is not kept: some 40 MB are the most that layouts take."""
_BIAS: Final = 0
EVIDENCE_LEFT: Final = 1.0
"""Little evidence stays as it is after a drift: the first steps of a knot must not be large."""
_MIX_CLIP: Final = 6.0
_SHARE_MIN: Final = 1e-3
"""No expert is ever out: one that was wrong for long must be able to come back."""

Array = np.ndarray[Any, Any]

_SQUARES_MAX: Final = VALUE_MAX**2
_Z_SQUARE: Final = Z_MAX**2
# As arrays: NumPy takes longer to make one of a Python number than to add it.
_LOW: Final = np.array(-Z_MAX)
_HIGH: Final = np.array(Z_MAX)
_INFINITE: Final = np.array(np.inf)
_VARIANCE_MIN: Final = np.array(DEVIATION_MIN * DEVIATION_MIN)
_COUNT_MAX: Final = np.array(float(COUNT_MAX))
_KNOT_MAX: Final = np.array(LAST - 1)
_NEXT: Final = np.array(1)
_ONE: Final = np.array(1.0)


class _Layout:
    """Where the features of one combination of names have their rows, and room for the arithmetic of an example.

    The room is written anew by every example: arrays of a hundred numbers cost more to make than to fill.

    Parameters
    ----------
    rows, inputs
        Rows of the matrix that the example touches, each once, and the value it has there. First the slopes of the
        numbers, then the indicators and the bias, then the two knots around each number, then the corners of pairs.
    """

    def __init__(self, names: tuple[str, ...], model: MixModel) -> None:
        numbers = [at for at, name in enumerate(names) if "=" not in name]
        indicators = [at for at, name in enumerate(names) if "=" in name]
        self.numbers = np.array(numbers, dtype=np.intp)
        self.indicators = np.array(indicators, dtype=np.intp)
        spots = [model._spots[names[at]] for at in numbers]
        self.apart = not spots or spots != list(range(spots[0], spots[0] + len(spots)))
        # Numbers that were met together stand together: a view of their moments is read and written in place.
        self.spots: Any = np.array(spots, dtype=np.intp) if self.apart else slice(spots[0], spots[-1] + 1)
        slopes = [model._rows[names[at]] for at in numbers]
        self.base = np.array(slopes, dtype=np.intp) + 1
        where = {names[at]: place for place, at in enumerate(numbers)}
        pairs = [(where[a], where[b], row) for (a, b), row in model._crossed.items() if a in where and b in where]
        self.pairs = np.array(pairs, dtype=np.intp).reshape(-1, 3)
        corners = np.repeat(self.pairs[:, 2][None, :], 4, axis=0).ravel()
        known = np.array([*slopes, *(model._rows[names[at]] for at in indicators), _BIAS], dtype=np.intp)
        self._room(np.concatenate([known, self.base, self.base, corners]), len(numbers), len(indicators))
        self.rates = model._rates[self.rows]
        self.weights = np.zeros_like(self.rates)
        self.evidence = np.zeros_like(self.rates)
        self.gradient = np.zeros_like(self.rates)
        self.weight_cells, self.evidence_cells = _cells(self.weights), _cells(self.evidence)

    def _room(self, rows: Array, numbers: int, indicators: int) -> None:
        self.rows = rows
        self.inputs = np.zeros(len(rows))
        first = numbers + indicators + 1
        self.z, self.fixed = self.inputs[:numbers], self.inputs[numbers : first - 1]
        self.inputs[first - 1] = 1.0
        low, high, end = first, first + numbers, first + 2 * numbers
        self.low, self.high, self.pair_inputs = self.inputs[low:high], self.inputs[high:end], self.inputs[end:]
        self.left, self.right, self.pair_rows = self.rows[low:high], self.rows[high:end], self.rows[end:]


def _cells(of: Array) -> Array:
    """The rows of a matrix as one item each: NumPy then copies them by index three times as fast."""
    return of.view(f"V{of.strides[0]}").ravel()


class MixModel:
    """P(open) by a mixture of online additive logistic regressions.

    Examples
    --------
    >>> model = MixModel(MixConfig(prior=0.2))
    >>> round(model.predict_proba_one({}), 3)
    0.2
    >>> for _ in range(50):
    ...     model.learn_one({"c=cart": 1.0}, 1)
    >>> model.predict_proba_one({"c=cart": 1.0}) > model.predict_proba_one({"c=other": 1.0})
    True

    References
    ----------
    Duchi, Hazan, Singer, 2011: Adaptive Subgradient Methods for Online Learning and Stochastic Optimization.
    Kivinen, Warmuth, 1997: Exponentiated Gradient versus Gradient Descent for Linear Predictors.
    Herbster, Warmuth, 1998: Tracking the Best Expert (the least share).
    """

    examples: int
    _frozen: FrozenCurves | None
    _shares: list[float]
    _calibrator: Calibrator
    _weights: Array
    """Of each row the weight that each expert gives it; `_evidence` and `_rates` alike."""
    _evidence: Array
    _rates: Array
    _moments: Array
    _used: int

    def __init__(self, config: MixConfig | None = None) -> None:
        self._build(untaught(config or MixConfig()))

    # -- learning

    def learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> None:
        """See `Model.learn_one`."""
        self.predict_learn_one(x, y, w)

    def predict_learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> float:
        """See `Model.predict_learn_one`."""
        w = capped_weight(w)
        if not w:
            return self.predict_proba_one(x)
        self.examples += 1
        self._frozen = None
        layout, values = self._inputs(x)
        numbers = values[layout.numbers]
        count, mean, variance = moments = self._moments[:, layout.spots]
        delta = numbers - mean
        self._encode(layout, delta, variance, values)
        rows, inputs = layout.rows, layout.inputs
        weights = self._weights.take(rows, 0, layout.weights, "clip")
        evidence = self._evidence.take(rows, 0, layout.evidence, "clip")
        logits = inputs.dot(weights).tolist()
        mixed = 0.0
        for share, logit in zip(self._shares, logits, strict=True):
            mixed += share * logit
        p = self._calibrator.learn(mixed, y, w)
        self._mix(logits, mixed, y, w)
        errors = np.array([[w * (sigmoid(logit) - y) for logit in logits]])
        gradient = np.dot(inputs[:, None], errors, layout.gradient)
        evidence += gradient * gradient
        gradient *= layout.rates
        gradient /= np.sqrt(evidence)
        weights -= gradient
        self._weight_cells[rows] = layout.weight_cells
        self._evidence_cells[rows] = layout.evidence_cells
        # Welford's recurrence with a bounded count, as in app.learning.scaling.
        np.add(count, _ONE, out=count)
        np.minimum(count, _COUNT_MAX, out=count)
        mean += delta / count
        variance += (delta * (numbers - mean) - variance) / count
        if layout.apart:
            self._moments[:, layout.spots] = moments
        if len(self._rows) > self.config.features_max:
            self.shrink()
        return p

    def _mix(self, logits: list[float], mixed: float, y: int, w: float) -> None:
        step = self.config.mix_rate * w * (sigmoid(mixed) - y)
        shares = []
        for share, logit in zip(self._shares, logits, strict=True):
            if not -_MIX_CLIP <= logit <= _MIX_CLIP:
                logit = min(max(logit, -_MIX_CLIP), _MIX_CLIP)  # noqa: PLW2901 - clipped
            shares.append(share * math.exp(-step * logit))
        total = sum(shares)
        shares = [max(share / total, _SHARE_MIN) for share in shares]
        total = sum(shares)
        self._shares = [share / total for share in shares]

    def learn_faster(self, name: str = "") -> None:
        """See `Model.learn_faster`."""
        if name:
            if (row := self._rows.get(name)) is not None:
                self._evidence[row] *= ALONE
            return
        evidence = self._evidence
        evidence[:] = np.maximum(evidence * FASTER, np.minimum(evidence, EVIDENCE_LEFT))

    # -- from names to rows

    def _inputs(self, x: Mapping[str, float]) -> tuple[_Layout, Array]:
        values = np.fromiter(x.values(), np.float64, len(x))
        if not values.dot(values) <= _SQUARES_MAX:
            x = {name: value for name, value in x.items() if -VALUE_MAX <= value <= VALUE_MAX}
            values = np.fromiter(x.values(), np.float64, len(x))
        names = tuple(x)
        layout = self._layouts.get(names)
        if layout is None:
            for name in names:
                if name not in self._rows:
                    self._admit(name)
            if len(self._layouts) >= LAYOUTS_MAX:
                self._layouts.clear()
            layout = _Layout(names, self)
            if len(names) <= NAMES_MAX:
                self._layouts[names] = layout
        return layout, values

    def _encode(self, layout: _Layout, delta: Array, variance: Array, values: Array) -> None:
        """Write the layout's rows and inputs.

        `delta` is the numbers' distance from their mean; one whose spread is not known yet adds nothing.
        """
        known = variance >= _VARIANCE_MIN
        z = np.divide(delta, np.sqrt(np.where(known, variance, _INFINITE)), out=layout.z)
        np.maximum(z, _LOW, out=z)
        np.minimum(z, _HIGH, out=z)
        fixed = values.take(layout.indicators, 0, layout.fixed, "clip")
        if fixed.dot(fixed) > _Z_SQUARE:
            np.maximum(fixed, _LOW, out=fixed)
            np.minimum(fixed, _HIGH, out=fixed)
        at = z + _HIGH
        knot = at.astype(np.intp)
        np.minimum(knot, _KNOT_MAX, out=knot)
        part = at - knot
        left = np.add(layout.base, knot, out=layout.left)
        np.add(left, _NEXT, out=layout.right)
        weighs = known.astype(np.float64)
        right = np.multiply(part, weighs, out=layout.high)
        np.subtract(weighs, right, out=layout.low)
        if len(layout.pairs):
            a, b, base = layout.pairs.T
            corner = base + knot[a] * KNOTS + knot[b]
            f, g, both = part[a], part[b], known[a] & known[b]
            layout.pair_rows[:] = np.concatenate([corner, corner + 1, corner + KNOTS, corner + KNOTS + 1])
            inputs = [(1 - f) * (1 - g) * both, (1 - f) * g * both, f * (1 - g) * both, f * g * both]
            layout.pair_inputs[:] = np.concatenate(inputs)

    def _admit(self, name: str) -> None:
        """Give a new feature its rows, and its pairs if it is one of the numbers that are crossed."""
        is_number = "=" not in name
        sees = np.array([expert.sees(name) for expert in self.config.experts], dtype=np.float64)
        curves = np.array([expert.curves for expert in self.config.experts], dtype=np.float64)
        rate = self.config.rate if is_number else self.config.indicator_rate
        self._rows[name] = self._append(1, sees, rate, self.config.head_start)
        if not is_number:
            return
        self._append(KNOTS, sees * curves, self.config.curve_rate, self._knot_floor)
        spot = self._spots[name] = len(self._spots)
        if spot >= self._moments.shape[1]:
            self._moments = np.concatenate([self._moments, np.zeros_like(self._moments)], axis=1)
        if spot < self.config.crosses:
            for other in [other for other in self._spots if other != name]:
                self._cross(other, name)

    def _cross(self, a: str, b: str) -> None:
        crossed = np.array([expert.crosses for expert in self.config.experts], dtype=np.float64)
        self._crossed[a, b] = self._append(KNOTS * KNOTS, crossed, self.config.curve_rate, self._knot_floor)

    @property
    def _knot_floor(self) -> float:
        return self.config.curve_floor + self.config.head_start

    def _append(self, count: int, seen: Array, rate: float, floor: float) -> int:
        """Add rows. Returns the first."""
        first = self._used
        self._used += count
        while self._used > len(self._rates):
            grown = [np.concatenate([old, np.zeros_like(old)]) for old in (self._weights, self._evidence, self._rates)]
            self._hold(*grown)
        new = slice(first, self._used)
        self._rates[new] = rate * seen
        self._evidence[new] = floor + EVIDENCE_MIN
        return first

    def shrink(self) -> bool:
        """See `Model.shrink`."""
        if not self._rows:
            return False
        strength = {name: float(self._evidence[row].sum()) for name, row in self._rows.items()}
        keep = set(
            sorted(strength, key=lambda name: (-strength[name], name))[
                : min(len(strength), self.config.features_max) * 3 // 4
            ]
        )
        state = self.state()
        state.weights = {name: rows for name, rows in state.weights.items() if name in keep}
        state.evidence = {name: rows for name, rows in state.evidence.items() if name in keep}
        state.moments = {name: moments for name, moments in state.moments.items() if name in keep}
        state.crossed = [pair for pair in state.crossed if pair[0] in keep and pair[1] in keep]
        self._build(state)
        return True

    # -- asking

    def predict_proba_one(self, x: Mapping[str, float]) -> float:
        """See `Model.predict_proba_one`."""
        return self._asked().open_probability(x)

    def explain_one(self, x: Mapping[str, float]) -> dict[str, float]:
        """See `Model.explain_one`."""
        return self._asked().explain_one(x)

    def _asked(self) -> FrozenCurves:
        """The serving copy of now; kept until the next example."""
        if self._frozen is None:
            self._frozen = self.freeze(0)
        return self._frozen

    def freeze(self, version: int) -> FrozenCurves:
        """See `Model.freeze`."""
        return freeze(self.state(), version)

    @property
    def shares(self) -> dict[str, float]:
        """How much of the mixture each expert is."""
        return {expert.name: share for expert, share in zip(self.config.experts, self._shares, strict=True)}

    # -- state

    def _build(self, state: MixState) -> None:
        self.config = state.config
        self.examples = state.examples
        experts = len(state.config.experts)
        self._frozen = None
        self._shares = list(state.shares)
        self._calibrator = Calibrator(state.config.calibration_rate, state.calibration)
        self._rows: dict[str, int] = {}
        self._spots: dict[str, int] = {}
        self._crossed: dict[tuple[str, str], int] = {}
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._used = 1
        self._hold(np.zeros((64, experts)), np.zeros((64, experts)), np.full((64, experts), state.config.rate))
        self._moments = np.zeros((3, 32))
        self._weights[_BIAS] = state.bias
        self._evidence[_BIAS] = state.bias_evidence
        for name, rows in state.weights.items():
            self._admit(name)
            self._fill(self._rows[name], rows, state.evidence[name])
            if name in state.moments:
                self._moments[:, self._spots[name]] = state.moments[name]
        for a, b, rows, sums in state.crossed:
            if (a, b) not in self._crossed:
                self._cross(a, b)
            self._fill(self._crossed[a, b], rows, sums)

    def _hold(self, weights: Array, evidence: Array, rates: Array) -> None:
        self._weights, self._evidence, self._rates = weights, evidence, rates
        self._weight_cells, self._evidence_cells = _cells(weights), _cells(evidence)

    def _fill(self, first: int, rows: list[float], sums: list[float]) -> None:
        experts = len(self.config.experts)
        place = slice(first, first + len(rows) // experts)
        self._weights[place] = np.reshape(rows, (-1, experts))
        self._evidence[place] = np.reshape(sums, (-1, experts))

    def _flat(self, of: Array, first: int, count: int) -> list[float]:
        values: list[float] = of[first : first + count].ravel().tolist()
        return values

    def state(self) -> MixState:
        """All that the model knows."""
        size = {name: 1 if "=" in name else ROWS for name in self._rows}
        cells = KNOTS * KNOTS
        return MixState(
            config=self.config,
            examples=self.examples,
            shares=list(self._shares),
            bias=self._weights[_BIAS].tolist(),
            bias_evidence=self._evidence[_BIAS].tolist(),
            moments={name: self._moments[:, spot].tolist() for name, spot in self._spots.items()},
            weights={name: self._flat(self._weights, row, size[name]) for name, row in self._rows.items()},
            evidence={name: self._flat(self._evidence, row, size[name]) for name, row in self._rows.items()},
            crossed=[
                (a, b, self._flat(self._weights, row, cells), self._flat(self._evidence, row, cells))
                for (a, b), row in self._crossed.items()
            ],
            calibration=self._calibrator.state,
        )

    def to_bytes(self) -> bytes:
        """See `Model.to_bytes`."""
        return msgspec.json.encode(self.state())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises `BadModel` for anything that `to_bytes` of a version we read did not write."""
        return cls.of_state(read_state(raw))

    @classmethod
    def of_state(cls, state: MixState) -> Self:
        """The model that knows this."""
        model = cls.__new__(cls)
        model._build(state)
        return model
