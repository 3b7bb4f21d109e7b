"""From a model's log-odds to probabilities that mean what they say: Platt's line and isotonic steps, side by side.

Both are fitted on log-odds that were given before their label was known, and each is judged by its loss before it
learns the example; the one with the smaller recent loss is applied. A line needs few examples and corrects what is
wrong everywhere (over-confidence, a base rate that moved); steps correct what is wrong somewhere, and need many.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final

import msgspec

from app.learning.logistic import PROBABILITY_MIN, log_loss, sigmoid

BINS: Final = 64
_LOGIT_MAX: Final = 8.0
_BIN_WIDTH = 2 * _LOGIT_MAX / BINS
MEMORY: Final = 50_000.0
"""Examples that the steps remember: beyond it all counts are halved."""
REFIT_EVERY: Final = 500
PRIOR_EXAMPLES: Final = 50.0
"""Each step is shrunk towards the mean of what was predicted there, as if by this many examples."""
GAIN_MEMORY: Final = 20_000.0
GAIN_ON: Final = 3.0
"""Nats (decayed) by which the steps must be ahead before they are applied; they are dropped when behind."""
LOGIT_CLIP: Final = 4.0

Curve = tuple[list[float], list[float]]
"""Knots: log-odds in, ascending, and log-odds out, not descending."""


class CalibrationState(msgspec.Struct, kw_only=True):
    """All that calibration knows; `bins` holds [examples, positives, sum of log-odds, sum of probabilities] each."""

    slope: float = 1.0
    offset: float = 0.0
    bins: dict[int, list[float]] = {}
    since_fit: int = 0
    knots_in: list[float] = []
    knots_out: list[float] = []
    gain: float = 0.0
    isotonic: bool = False


def apply_curve(curve: Curve, logit: float) -> float:
    """Linear between the knots; beyond them moved as the outermost knot is.

    Examples
    --------
    >>> apply_curve(([0.0, 1.0], [0.0, 3.0]), 0.5), apply_curve(([0.0, 1.0], [0.0, 3.0]), 2.0)
    (1.5, 4.0)
    """
    xs, ys = curve
    if logit <= xs[0]:
        return logit - xs[0] + ys[0]
    if logit >= xs[-1]:
        return logit - xs[-1] + ys[-1]
    at = bisect_right(xs, logit)
    x0, y0 = xs[at - 1], ys[at - 1]
    return y0 + (logit - x0) * (ys[at] - y0) / (xs[at] - x0)


def isotonic(bins: list[list[float]]) -> Curve:
    """Pool adjacent violators over bins in ascending order of log-odds.

    Parameters
    ----------
    bins
        [examples, positives, sum of log-odds, sum of probabilities] each, examples > 0.

    References
    ----------
    Ayer, Brunk, Ewing, Reid, Silverman, 1955: An Empirical Distribution Function for Sampling with Incomplete
    Information.
    """
    blocks: list[list[float]] = []
    for bin_ in bins:
        blocks.append(list(bin_))
        while len(blocks) > 1 and _rate(blocks[-2]) >= _rate(blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    xs, ys = [], []
    for block in blocks:
        rate = min(max(_rate(block), PROBABILITY_MIN), 1.0 - PROBABILITY_MIN)
        xs.append(block[2] / block[0])
        ys.append(math.log(rate / (1.0 - rate)))
    return xs, ys


def _rate(block: list[float]) -> float:
    count, positives, _logits, probabilities = block
    return (positives + PRIOR_EXAMPLES * probabilities / count) / (count + PRIOR_EXAMPLES)


class Calibrator:
    """Learns both maps and applies the better.

    Parameters
    ----------
    rate
        Step size of Platt's two parameters; 0 switches calibration off.

    References
    ----------
    Platt, 1999: Probabilistic Outputs for Support Vector Machines.
    """

    def __init__(self, rate: float, state: CalibrationState | None = None) -> None:
        self._rate = rate
        self.state = state or CalibrationState()

    def curve(self) -> Curve | None:
        """The steps, when they are what is applied; they are applied to the log-odds that Platt's line gives."""
        state = self.state
        return (state.knots_in, state.knots_out) if state.isotonic else None

    def logit(self, raw: float) -> float:
        """Calibrated log-odds."""
        line = self.state.slope * raw + self.state.offset
        curve = self.curve()
        return line if curve is None else apply_curve(curve, line)

    def learn(self, raw: float, y: int, w: float) -> float:
        """Take an example into both maps. Gives the calibrated probability of before."""
        if not self._rate:
            return sigmoid(raw)
        state = self.state
        line = state.slope * raw + state.offset
        p = by_line = sigmoid(line)
        if state.knots_in:
            by_steps = sigmoid(apply_curve((state.knots_in, state.knots_out), line))
            p = by_steps if state.isotonic else by_line
            ahead = log_loss(by_line, y) - log_loss(by_steps, y)
            state.gain += w * ahead - state.gain / GAIN_MEMORY
            state.isotonic = state.gain > (0.0 if state.isotonic else GAIN_ON)
        self._count(line, by_line, y, w)
        step = self._rate * w * (by_line - y)
        state.slope -= step * min(max(raw, -LOGIT_CLIP), LOGIT_CLIP)
        state.offset -= step
        return p

    def _count(self, line: float, p: float, y: int, w: float) -> None:
        state = self.state
        at = min(max(int((line + _LOGIT_MAX) / _BIN_WIDTH), 0), BINS - 1)
        found = state.bins.get(at)
        if found is None:
            state.bins[at] = [w, w * y, w * line, w * p]
        else:
            found[0] += w
            found[1] += w * y
            found[2] += w * line
            found[3] += w * p
        state.since_fit += 1
        if state.since_fit >= REFIT_EVERY:
            self._refit()

    def _refit(self) -> None:
        state = self.state
        state.since_fit = 0
        if sum(found[0] for found in state.bins.values()) > MEMORY:
            for found in state.bins.values():
                found[:] = [number / 2.0 for number in found]
        state.knots_in, state.knots_out = isotonic([state.bins[at] for at in sorted(state.bins)])
