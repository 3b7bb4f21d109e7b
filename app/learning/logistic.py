"""The few formulas and bounds that all of learning shares."""

from __future__ import annotations

import math
from typing import Final

WEIGHT_MAX: Final = 5.0
"""No example counts for more than this, whoever produced it."""
PROBABILITY_MIN: Final = 1e-6
_PROBABILITY_MAX: Final = 1.0 - PROBABILITY_MIN
VALUE_MAX: Final = 1e12
"""A feature value beyond this, or not finite, counts as missing."""


def sigmoid(logit: float) -> float:
    """The logistic function, kept strictly inside (0, 1)."""
    if logit >= 0.0:
        p = 1.0 / (1.0 + math.exp(-logit)) if logit < 50.0 else 1.0
    else:
        e = math.exp(logit) if logit > -50.0 else 0.0
        p = e / (1.0 + e)
    return p if PROBABILITY_MIN <= p <= _PROBABILITY_MAX else min(max(p, PROBABILITY_MIN), _PROBABILITY_MAX)


def log_loss(p: float, y: int) -> float:
    """Negative log likelihood in nats; `p` is clipped to [PROBABILITY_MIN, 1 - PROBABILITY_MIN]."""
    if not PROBABILITY_MIN <= p <= _PROBABILITY_MAX:
        p = min(max(p, PROBABILITY_MIN), _PROBABILITY_MAX)
    return -math.log(p) if y else -math.log1p(-p)


def capped_weight(w: float) -> float:
    """`w` in [0, WEIGHT_MAX]; what is not a number teaches nothing."""
    return min(w, WEIGHT_MAX) if w > 0.0 else 0.0


FASTER: Final = 0.3
"""Share of the evidence that is left after a drift: AdaGrad's steps then are nearly twice as large."""
ALONE: Final = 0.05
"""The same where one feature alone has drifted: four to five times as large."""
