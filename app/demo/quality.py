"""How good predicted probabilities were: exact figures over a list of matured examples.

Scores are those logged at decision time, so the figures are progressive: no example was learned before it was scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class Quality(msgspec.Struct, frozen=True):
    """Figures over `examples`; None where they are undefined (no example, or one class only).

    `log_loss_constant` is that of the best constant, the base rate in hindsight: no constant predictor beats it.
    `calibration_ratio` is predicted opens over opens.
    """

    auc: float | None
    log_loss: float | None
    log_loss_constant: float | None
    calibration_ratio: float | None
    examples: int


def quality_of(examples: Sequence[tuple[float, int]]) -> Quality:
    """Judge (score, label) pairs; scores in (0, 1), labels 0 or 1.

    Examples
    --------
    >>> quality_of([(0.9, 1), (0.2, 0)]).auc
    1.0
    """
    total = len(examples)
    opened = sum(label for _, label in examples)
    if not total:
        return Quality(None, None, None, None, 0)
    loss = -sum(math.log(_clip(score if label else 1.0 - score)) for score, label in examples) / total
    rate = opened / total
    constant = 0.0 if opened in (0, total) else -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return Quality(
        auc=_round(area_under_roc(examples)),
        log_loss=_round(loss),
        log_loss_constant=_round(constant),
        calibration_ratio=_round(sum(score for score, _ in examples) / opened) if opened else None,
        examples=total,
    )


def area_under_roc(examples: Sequence[tuple[float, int]]) -> float | None:
    """The chance that a random positive scores above a random negative, ties counting half (Mann-Whitney U).

    Examples
    --------
    >>> area_under_roc([(0.1, 0), (0.5, 1), (0.5, 0)])
    0.75
    """
    positives = sum(label for _, label in examples)
    negatives = len(examples) - positives
    if not positives or not negatives:
        return None
    ordered = sorted(examples)
    rank_sum = 0.0
    at = 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        tied_positives = sum(label for _, label in ordered[at:end])
        rank_sum += tied_positives * (at + 1 + end) / 2  # ranks at+1 .. end, tied: their mean
        at = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that `share` of an ascending sequence does not exceed (nearest rank); None when it is empty.

    Examples
    --------
    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _clip(probability: float) -> float:
    return min(max(probability, 1e-12), 1.0)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
