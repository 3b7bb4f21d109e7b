"""Fixed-horizon comparisons of rates: right at one look that was planned before the data, and only there.

Looking daily and stopping at the first p < 0.05 makes false alarms several times as frequent (see
benchmarks/results-experiments.md); whoever wants to look takes `app.experiments.sequential`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from app.experiments.samples import Interval, Sample


def two_proportions(treatment: Sample, control: Sample, *, alpha: float = 0.05) -> Interval:
    """Compare two rates at the end of an experiment.

    The p-value is that of the pooled z-test, the interval is Newcombe's hybrid of two Wilson intervals, which keeps
    its coverage for small and extreme rates.

    Parameters
    ----------
    alpha
        1 - coverage of the interval, in (0, 1).

    Returns
    -------
    Interval
        (-1, 1) and a p-value of 1 when either has no units.

    Examples
    --------
    >>> found = two_proportions(Sample(1000, 130), Sample(1000, 100))
    >>> round(found.difference, 3), round(found.p_value, 3)
    (0.03, 0.035)

    References
    ----------
    Newcombe, 1998: Interval estimation for the difference between independent proportions, method 10.
    """
    if not treatment.units or not control.units:
        return Interval(0.0, -1.0, 1.0, 1.0)
    difference = treatment.rate - control.rate
    low_t, high_t = wilson(treatment, alpha=alpha)
    low_c, high_c = wilson(control, alpha=alpha)
    below = math.hypot(treatment.rate - low_t, high_c - control.rate)
    above = math.hypot(high_t - treatment.rate, control.rate - low_c)
    pooled = (treatment.successes + control.successes) / (treatment.units + control.units)
    error = math.sqrt(pooled * (1 - pooled) * (1 / treatment.units + 1 / control.units))
    p_value = float(2 * stats.norm.sf(abs(difference) / error)) if error else 1.0
    return Interval(difference, difference - below, difference + above, p_value)


def wilson(sample: Sample, *, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson's score interval of a rate.

    References
    ----------
    Wilson, 1927: Probable inference, the law of succession, and statistical inference.
    """
    z = float(stats.norm.isf(alpha / 2))
    units, rate = sample.units, sample.rate
    centre = (rate + z * z / (2 * units)) / (1 + z * z / units)
    half = z / (1 + z * z / units) * math.sqrt(rate * (1 - rate) / units + z * z / (4 * units * units))
    return max(0.0, centre - half), min(1.0, centre + half)


def homogeneity(samples: Sequence[Sample]) -> float:
    """P-value of Pearson's chi-squared test that all variants have one rate; 1 where there is nothing to compare."""
    table = [[sample.successes, sample.failures] for sample in samples if sample.units]
    if len(table) < 2 or not any(row[0] for row in table) or not any(row[1] for row in table):
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)
