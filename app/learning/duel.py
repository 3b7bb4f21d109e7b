"""Champion against challenger: who has the smaller loss, asked as often as one likes.

Both models are asked before they learn each example, so the pairs of losses are progressive. The mean of their
differences has a confidence sequence, so the challenger may be promoted the moment the lower bound is above 0, and the
chance of ever promoting one that is no better is at most `ALPHA`. The bound is asymptotic (the normal approximation
must hold from `EXAMPLES_MIN` on) and takes differences as independent enough; they are clipped, so that one surprise
does not decide.

References
----------
Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, 2024: Time-uniform central limit theory and asymptotic confidence
sequences, theorem 2.2.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

ALPHA: Final = 0.01
EXAMPLES_MIN: Final = 1_000
DIFFERENCE_MAX: Final = 1.0
"""Nats."""
RHO: Final = 0.05
"""Of the mixture: the bound is tightest near 1 / RHO² * log(1 / ALPHA) examples, some thousands."""


class Duel(msgspec.Struct):
    """Running moments of champion's loss minus challenger's."""

    examples: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, champion_loss: float, challenger_loss: float) -> None:
        """One example, both judged before learning it."""
        difference = min(max(champion_loss - challenger_loss, -DIFFERENCE_MAX), DIFFERENCE_MAX)
        self.examples += 1
        delta = difference - self.mean
        self.mean += delta / self.examples
        self.squares += delta * (difference - self.mean)

    @property
    def lower_bound(self) -> float:
        """The challenger's gain is at least this, at every look at once with probability 1 - ALPHA; -inf early on."""
        n = self.examples
        if n < EXAMPLES_MIN:
            return -math.inf
        ratio = n * RHO * RHO
        variance = self.squares / n
        radius = math.sqrt(variance * 2 * (ratio + 1) / (n * ratio) * math.log(math.sqrt(ratio + 1) / ALPHA))
        return self.mean - radius

    @property
    def challenger_wins(self) -> bool:
        """The promotion rule."""
        return self.lower_bound > 0.0
