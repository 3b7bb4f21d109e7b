"""Progressive metrics: each matured outcome is judged by a score that was given before its label was known.

Two scores are judged side by side: the one logged with the decision (what the user met: the model as it was served,
delay and staleness included), and the learner's own just before it learns the example (test-then-train). Beside both
stands the constant predictor, the running base rate, which any model must beat.

Beside the whole life of the model stand its newest examples (two blocks of `BLOCK`, the older whole, the newer growing)
and each of its campaigns, at most `CAMPAIGNS_MAX`.

AUC, precision, recall and F1 are counted in a histogram of scores, so they cost O(1) an example, need no window of
examples, and can be written down in a snapshot; River's ROCAUC visits every threshold for every example, and its
rolling metrics keep the examples. The price is that scores in one bin count as ties: an error below half a bin's share
of pairs.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from app.learning.logistic import log_loss

BINS: Final = 512
BLOCK: Final = 2_000
CAMPAIGNS_MAX: Final = 32
CAMPAIGN_BLOCK: Final = 500
_LOGIT_MAX: Final = 8.0
_BINS_PER_LOGIT = BINS / (2 * _LOGIT_MAX)
_CAMPAIGN_BINS = 8
"""A campaign's bins are so many times as wide."""


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

    def add(self, p: float, y: int, loss: float, at: int | None = None) -> None:
        """One example: score, label, the score's log loss, and its bin where that is known."""
        self.examples += 1
        self.positives += y
        self.loss += loss
        self.brier += (p - y) ** 2
        self.scores += p
        (self.bins_1 if y else self.bins_0)[score_bin(p) if at is None else at] += 1

    def correct(self, p: float) -> None:
        """An example that was judged as a negative is a positive. Of the newest examples it may be gone already."""
        at = score_bin(p)
        self.positives += 1
        self.loss += log_loss(p, 1) - log_loss(p, 0)
        self.brier += (p - 1.0) ** 2 - p**2
        self.bins_1[at] += 1
        self.bins_0[at] -= self.bins_0[at] > 0

    def merged(self, other: Track) -> Track:
        """Both together."""
        return Track(
            self.examples + other.examples,
            self.positives + other.positives,
            self.loss + other.loss,
            self.brier + other.brier,
            self.scores + other.scores,
            [a + b for a, b in zip(self.bins_1, other.bins_1, strict=True)],
            [a + b for a, b in zip(self.bins_0, other.bins_0, strict=True)],
        )

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

    def at_threshold(self, threshold: float) -> dict[str, float]:
        """Precision, recall and F1 of saying "opens" from this score on, to the width of a bin; undefined ones left
        out.
        """
        at = score_bin(threshold)
        found, false = sum(self.bins_1[at:]), sum(self.bins_0[at:])
        result = {}
        if found + false:
            result["precision"] = found / (found + false)
        if self.positives:
            result["recall"] = found / self.positives
        if self.positives + found + false:
            result["f1"] = 2 * found / (self.positives + found + false)
        return result


class Sums(msgspec.Struct, array_like=True):
    """Running sums over a campaign's served scores; `said` counts scores at the working threshold or above, `hits` the
    opens among them.
    """

    examples: int = 0
    positives: int = 0
    loss: float = 0.0
    scores: float = 0.0
    brier: float = 0.0
    said: int = 0
    hits: int = 0

    def add(self, p: float, y: int, loss: float, says: bool) -> None:
        """One example; `says` is whether its score reaches the working threshold."""
        self.examples += 1
        self.positives += y
        self.loss += loss
        self.scores += p
        self.brier += (p - y) ** 2
        self.said += says
        self.hits += says and y

    def correct(self, p: float, says: bool) -> None:
        """An example that was judged as a negative is a positive."""
        self.positives += 1
        self.loss += log_loss(p, 1) - log_loss(p, 0)
        self.brier += (p - 1.0) ** 2 - p**2
        self.hits += says

    def merged(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(
            *(getattr(self, name) + getattr(other, name) for name in ("examples", "positives", "loss", "scores")),
            *(getattr(self, name) + getattr(other, name) for name in ("brier", "said", "hits")),
        )

    def to_dict(self) -> dict[str, float]:
        """Undefined ones are left out."""
        if not self.examples:
            return {}
        result = {"log_loss": self.loss / self.examples, "brier": self.brier / self.examples}
        if self.positives:
            result["calibration_ratio"] = self.scores / self.positives
            result["recall"] = self.hits / self.positives
        if self.said:
            result["precision"] = self.hits / self.said
        if self.said + self.positives:
            result["f1"] = 2 * self.hits / (self.said + self.positives)
        return result


class Small(msgspec.Struct, array_like=True):
    """A campaign's sums: of its life (the first four numbers), and of its newest examples.

    Parameters
    ----------
    blocks
        The newest `CAMPAIGN_BLOCK` to 2 * `CAMPAIGN_BLOCK` examples: the full block and the growing one.
    bins
        Of the campaign's life, bin of the score (a quarter of a unit of log-odds) to [not opened, opened].
    """

    examples: int = 0
    positives: int = 0
    loss: float = 0.0
    scores: float = 0.0
    blocks: list[Sums] = msgspec.field(default_factory=lambda: [Sums(), Sums()])
    bins: dict[int, list[int]] = {}

    def add(self, p: float, y: int, loss: float, says: bool, at: int) -> None:
        """One example, see `Sums.add`; `at` is the bin of its score."""
        self.examples += 1
        self.positives += y
        self.loss += loss
        self.scores += p
        if self.blocks[1].examples >= CAMPAIGN_BLOCK:
            self.blocks = [self.blocks[1], Sums()]
        self.blocks[1].add(p, y, loss, says)
        self.bins.setdefault(at // _CAMPAIGN_BINS, [0, 0])[y] += 1

    def correct(self, p: float, says: bool) -> None:
        """See `Sums.correct`."""
        self.positives += 1
        self.loss += log_loss(p, 1) - log_loss(p, 0)
        self.blocks[1].correct(p, says)
        counts = self.bins.setdefault(score_bin(p) // _CAMPAIGN_BINS, [0, 0])
        counts[1] += 1
        counts[0] -= counts[0] > 0

    def to_dict(self) -> dict[str, float]:
        """Mean log loss (nats), and AUC and mean score over base rate where defined; those of the newest examples, and
        their Brier score, precision, recall and F1 at the working threshold, as ``recent_…``.
        """
        result = {"examples": float(self.examples), "log_loss": self.loss / max(self.examples, 1)}
        if self.positives:
            result["calibration_ratio"] = self.scores / self.positives
        counts = [self.bins[at] for at in sorted(self.bins)]
        auc = histogram_auc([ones for _, ones in counts], [zeros for zeros, _ in counts])
        if not math.isnan(auc):
            result["auc"] = auc
        recent = self.blocks[0].merged(self.blocks[1]).to_dict()
        return result | {f"recent_{name}": value for name, value in recent.items()}


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
    blocks
        The served scores and the learner's in the newest `BLOCK` to 2 * `BLOCK` examples: [served, learner] of the
        full block and of the growing one.
    campaigns
        Served scores by campaign; when there are too many, the one with fewest examples goes.
    """

    served: Track = msgspec.field(default_factory=Track)
    learner: Track = msgspec.field(default_factory=Track)
    constant_loss: float = 0.0
    blocks: list[Track] = msgspec.field(default_factory=lambda: [Track(), Track(), Track(), Track()])
    campaigns: dict[str, Small] = {}

    def add(self, served: float, learner: float, y: int, campaign: str = "") -> float:
        """One matured outcome; gives the learner's log loss on it.

        A served score that is no number counts as 1/2, the score of not knowing.
        """
        threshold = self.threshold
        self.constant_loss += log_loss(threshold, y)
        if not 0.0 <= served <= 1.0:
            served = 0.5
        loss, served_loss = log_loss(learner, y), log_loss(served, y)
        at, served_at = score_bin(learner), score_bin(served)
        self.served.add(served, y, served_loss, served_at)
        self.learner.add(learner, y, loss, at)
        blocks = self.blocks
        if blocks[2].examples >= BLOCK:
            self.blocks = blocks = [blocks[2], blocks[3], Track(), Track()]
        blocks[2].add(served, y, served_loss, served_at)
        blocks[3].add(learner, y, loss, at)
        if campaign:
            self._campaign(campaign).add(served, y, served_loss, served >= threshold, served_at)
        return loss

    def _campaign(self, name: str) -> Small:
        found = self.campaigns.get(name)
        if found is None:
            if len(self.campaigns) >= CAMPAIGNS_MAX:
                del self.campaigns[min(self.campaigns, key=lambda other: (self.campaigns[other].examples, other))]
            found = self.campaigns[name] = Small()
        return found

    def correct(self, served: float, campaign: str = "") -> None:
        """An example with label 0 was opened after its horizon: every figure is then of label 1.

        The learner's own score of then is not known any more; the served one stands for it.
        """
        p = served if 0.0 <= served <= 1.0 else 0.5
        for track in (self.served, self.learner, self.blocks[2], self.blocks[3]):
            track.correct(p)
        found = self.campaigns.get(campaign)
        if found is not None:
            found.correct(p, p >= self.threshold)

    @property
    def threshold(self) -> float:
        """The working threshold: the base rate. Above it, an open is likelier than of a send at random."""
        return (self.learner.positives + 0.5) / (self.learner.examples + 1.0)

    def recent(self) -> tuple[Track, Track]:
        """(served, the learner's) over the newest examples."""
        return self.blocks[0].merged(self.blocks[2]), self.blocks[1].merged(self.blocks[3])

    def to_dict(self) -> dict[str, float]:
        """`auc`, `log_loss`, `brier`, `calibration_ratio`, `precision`, `recall`, `f1` of the served scores; the
        learner's as `learner_…`; of the newest examples as `recent_…` and `recent_learner_…`.
        """
        result = self.served.to_dict() | self.served.at_threshold(self.threshold)
        result |= {f"learner_{name}": value for name, value in self.learner.to_dict().items()}
        for prefix, track in zip(("recent_", "recent_learner_"), self.recent(), strict=True):
            result |= {prefix + name: value for name, value in track.to_dict().items()}
        if self.learner.examples:
            result["log_loss_constant"] = self.constant_loss / self.learner.examples
        result["examples"] = float(self.learner.examples)
        result["positives"] = float(self.learner.positives)
        return result
