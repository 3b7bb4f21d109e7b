"""The sample-ratio check: did units fall on the variants as they were meant to?

A mismatch means that something lost or moved units after assignment; then no comparison of the experiment can be
trusted, however significant.

References
----------
Fabijan et al., 2019: Diagnosing Sample Ratio Mismatch in Online Controlled Experiments (and its customary 0.0005).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scipy import stats

from app.experiments.sequential import multinomial_log_e, p_value_of

MISMATCH_ALPHA: Final = 0.0005


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """P-values that the counts follow the shares: by chi-squared at one look, and at every look."""

    p_value: float
    p_value_always: float

    @property
    def mismatch(self) -> bool:
        """Whether the experiment must not be read. By the always-valid value: a report is printed daily."""
        return self.p_value_always < MISMATCH_ALPHA


def check_ratio(counts: Sequence[int], weights: Sequence[float]) -> RatioCheck:
    """Compare counts with intended weights, which need not sum to 1.

    Raises
    ------
    ValueError
        When shapes differ or a weight is not positive.

    Examples
    --------
    >>> check_ratio([5000, 5060], [1, 1]).mismatch, check_ratio([5000, 5600], [1, 1]).mismatch
    (False, True)
    """
    if len(counts) != len(weights) or not weights or min(weights) <= 0:
        raise ValueError("one positive weight for each count")
    whole = sum(weights)
    shares = [weight / whole for weight in weights]
    number = sum(counts)
    if not number or len(counts) == 1:
        return RatioCheck(1.0, 1.0)
    fixed = float(stats.chisquare(counts, [share * number for share in shares]).pvalue)
    return RatioCheck(fixed, p_value_of(multinomial_log_e(counts, shares)))
