"""Always-valid comparisons: right at every look, so an experiment may be watched and stopped at any time.

Two tools, for two kinds of rate:

- `difference_sequence`: a confidence sequence for the difference of two rates, Robbins' normal mixture. It is
  asymptotic: the normal approximation must hold from the first look that counts, so until every variant has
  `BURN_IN` successes and failures it says (-1, 1).
- `multinomial_log_e`: exact for counts however small, for one question: do successes (or units) fall on the variants
  in the shares in which units were assigned? It serves rare outcomes and the sample-ratio check.

References
----------
Robbins, 1970: Statistical methods related to the law of the iterated logarithm.
Johari, Koomen, Pekelis, Walsh, 2022: Always Valid Inference: Continuous Monitoring of A/B Tests (mSPRT).
Howard, Ramdas, McAuliffe, Sekhon, 2021: Time-uniform, nonparametric, nonasymptotic confidence sequences, eq. 14.
Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, 2024: Time-uniform central limit theory and asymptotic confidence
sequences, theorem 2.2.
Lindon, Malek, 2022: Anytime-Valid Inference for Multinomial Count Data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from app.experiments.samples import Interval, Sample

BURN_IN: Final = 20
CONCENTRATION: Final = 100.0
"""Of the Dirichlet mixture around the null: about as many counts as the alternative is thought to be away from it."""
_EXP_MAX: Final = 700.0


def mixture_radius(variance: float, *, tau: float, alpha: float) -> float:
    """Half the width of the normal-mixture confidence sequence of a mean.

    With V the estimator's variance now and tau² the mixture's: ``sqrt(V (V + tau²) / tau² * log((V + tau²) / (V
    alpha²)))``, which is theorem 2.2 of Waudby-Smith et al. with V = sigma²/t and rho = tau / sigma.

    Parameters
    ----------
    variance
        Of the estimate at this look, above 0.
    tau
        Size of the differences that are expected, in the estimate's unit; fixed before the data. A wrong guess costs
        width, never validity.
    """
    both = variance + tau * tau
    return math.sqrt(variance * both / (tau * tau) * math.log(both / (variance * alpha * alpha)))


def mixture_p_value(difference: float, variance: float, *, tau: float) -> float:
    """The always-valid p-value of no difference: the inverse of the mixture likelihood ratio, at most 1."""
    both = variance + tau * tau
    exponent = difference**2 * tau**2 / (2 * variance * both)
    return min(1.0, math.sqrt(both / variance) * math.exp(-min(exponent, _EXP_MAX)))


def difference_sequence(treatment: Sample, control: Sample, *, tau: float, alpha: float = 0.05) -> Interval:
    """Compare two rates at any look.

    With probability 1 - `alpha` the difference is in the interval of every look at once. The p-value may be used at
    any stopping time; intersecting intervals, or keeping the smallest p-value, over looks is allowed as well.

    Examples
    --------
    >>> found = difference_sequence(Sample(5000, 900), Sample(5000, 750), tau=0.03)
    >>> found.low > 0 and found.p_value < 0.05
    True
    >>> difference_sequence(Sample(10, 9), Sample(10, 1), tau=0.03).low
    -1.0
    """
    difference = treatment.rate - control.rate
    counts = (treatment.successes, treatment.failures, control.successes, control.failures)
    if min(counts) < BURN_IN:
        return Interval(difference, -1.0, 1.0, 1.0)
    variance = treatment.variance + control.variance
    radius = mixture_radius(variance, tau=tau, alpha=alpha)
    p_value = mixture_p_value(difference, variance, tau=tau)
    return Interval(difference, max(-1.0, difference - radius), min(1.0, difference + radius), p_value)


def multinomial_log_e(counts: Sequence[int], shares: Sequence[float], *, concentration: float = CONCENTRATION) -> float:
    """Logarithm of the evidence against counts falling in these shares: an e-process, started at 0.

    Under the null the probability that it ever reaches ``log(1 / alpha)`` is at most alpha, at any number of looks.

    Parameters
    ----------
    shares
        Of the null, positive, summing to 1.

    Raises
    ------
    ValueError
        When shapes differ or a share is not positive.
    """
    if len(counts) != len(shares) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError("one positive share for each count, summing to 1")
    total = math.lgamma(concentration) - math.lgamma(concentration + sum(counts))
    for count, share in zip(counts, shares, strict=True):
        prior = concentration * share
        total += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return total


def p_value_of(log_e: float) -> float:
    """The always-valid p-value of an e-value: its inverse, at most 1 (Markov's, or Ville's, inequality)."""
    return math.exp(-log_e) if log_e > 0 else 1.0
