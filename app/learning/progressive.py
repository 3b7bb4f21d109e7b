"""Progressive metrics: each matured outcome is judged by a score that was given before its label was known.

Two scores are judged side by side: the one logged with the decision (what the user met: the model as it was served,
delay and staleness included), and the learner's own just before it learns the example (test-then-train). Beside both
stands the constant predictor, the running base rate, which any model must beat.

AUC is counted in a histogram of scores, so it costs O(1) an example, needs no window of examples, and can be written
down in a snapshot; River's ROCAUC visits every threshold for every example. The price is that scores in one bin count
as ties: an error below half a bin's share of pairs.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from app.learning.logistic import log_loss

BINS: Final = 512
_LOGIT_MAX: Final = 8.0
_BINS_PER_LOGIT = BINS / (2 * _LOGIT_MAX)


def score_bin(p: float) -> int:
    """The histogram bin of a score; bins have equal width in log-odds, so that rare opens are resolved as well."""
    if p <= 0.0:
        return 0
    if p >= 1.0:
        return BINS - 1
    logit = math.log(p / (1.0 - p))
    return min(max(int((logit + _LOGIT_MAX) * _BINS_PER_LOGIT), 0), BINS - 1)


def histogram_auc(positives: list[int], negatives: list[int]) -> float:
    """Probability that a positive scores above a negative, ties counted half; NaN without one of each.

    Examples
    --------
    >>> histogram_auc([0, 1], [1, 0])
    1.0
    >>> histogram_auc([1, 0], [1, 0])
    0.5
    """
    pairs = sum(positives) * sum(negatives)
    if not pairs:
        return math.nan
    below = 0
    won = 0.0
    for positive, negative in zip(positives, negatives, strict=True):
        won += positive * (below + negative / 2)
        below += negative
    return won / pairs


class Track(msgspec.Struct):
    """Running sums over one kind of score. Plain numbers: it is its own snapshot."""

    examples: int = 0
    positives: int = 0
    loss: float = 0.0
    brier: float = 0.0
    scores: float = 0.0
    bins_1: list[int] = msgspec.field(default_factory=lambda: [0] * BINS)
    bins_0: list[int] = msgspec.field(default_factory=lambda: [0] * BINS)

    def add(self, p: float, y: int, loss: float) -> None:
        """One example: score, label, and the score's log loss."""
        self.examples += 1
        self.positives += y
        self.loss += loss
        self.brier += (p - y) ** 2
        self.scores += p
        (self.bins_1 if y else self.bins_0)[score_bin(p)] += 1

    def to_dict(self) -> dict[str, float]:
        """AUC, mean log loss (nats), Brier score, and mean score over base rate. Undefined ones are left out."""
        if not self.examples:
            return {}
        result = {"log_loss": self.loss / self.examples, "brier": self.brier / self.examples}
        auc = histogram_auc(self.bins_1, self.bins_0)
        if not math.isnan(auc):
            result["auc"] = auc
        if self.positives:
            result["calibration_ratio"] = self.scores / self.positives
        return result


class Progressive(msgspec.Struct):
    """The metrics of one model.

    Parameters
    ----------
    served
        Over the scores logged at decision time.
    learner
        Over the learner's own scores, before it learned the example.
    constant_loss
        Sum of the log losses of the running base rate, `(positives + 1/2) / (examples + 1)` (Jeffreys' prior).
    """

    served: Track = msgspec.field(default_factory=Track)
    learner: Track = msgspec.field(default_factory=Track)
    constant_loss: float = 0.0

    def add(self, served: float, learner: float, y: int) -> float:
        """One matured outcome; gives the learner's log loss on it.

        A served score that is no number counts as 1/2, the score of not knowing.
        """
        seen = self.learner
        self.constant_loss += log_loss((seen.positives + 0.5) / (seen.examples + 1.0), y)
        if not 0.0 <= served <= 1.0:
            served = 0.5
        loss = log_loss(learner, y)
        self.served.add(served, y, log_loss(served, y))
        self.learner.add(learner, y, loss)
        return loss

    def to_dict(self) -> dict[str, float]:
        """`auc`, `log_loss`, `brier`, `calibration_ratio` of the served scores; the learner's as `learner_…`."""
        result = self.served.to_dict()
        result |= {f"learner_{name}": value for name, value in self.learner.to_dict().items()}
        if self.learner.examples:
            result["log_loss_constant"] = self.constant_loss / self.learner.examples
        result["examples"] = float(self.learner.examples)
        result["positives"] = float(self.learner.positives)
        return result
