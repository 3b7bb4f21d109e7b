"""Our statistics agree with SciPy's, statsmodels' and savvi's, and hold what they promise when they are peeked at."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import savvi
from savvi.multinomial import Multinomial
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportions_ztest

from app.experiments.fixed import homogeneity, two_proportions, wilson
from app.experiments.multiple import benjamini_hochberg, holm
from app.experiments.power import Design, detectable_effect, power_always, power_of, sample_size
from app.experiments.ratio import check_ratio
from app.experiments.samples import Sample
from app.experiments.sequential import (
    BURN_IN,
    difference_sequence,
    mixture_p_value,
    mixture_radius,
    multinomial_log_e,
    p_value_of,
)
from app.learning.guard import GUARD_ALPHA, guard_log_e, must_stop

PAIRS = [
    (Sample(1000, 130), Sample(1000, 100)),
    (Sample(40, 3), Sample(900, 2)),
    (Sample(5000, 25), Sample(2500, 30)),
    (Sample(30, 30), Sample(30, 0)),
]


@pytest.mark.parametrize(("treatment", "control"), PAIRS)
def test_two_rates_are_compared_as_statsmodels_does(treatment: Sample, control: Sample) -> None:
    counts, units = [treatment.successes, control.successes], [treatment.units, control.units]
    found = two_proportions(treatment, control, alpha=0.1)
    assert found.p_value == pytest.approx(proportions_ztest(counts, units)[1], abs=1e-12)
    low, high = confint_proportions_2indep(counts[0], units[0], counts[1], units[1], method="newcomb", alpha=0.1)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert wilson(control) == pytest.approx(proportion_confint(counts[1], units[1], method="wilson"), abs=1e-12)


def test_nobody_is_no_evidence() -> None:
    assert two_proportions(Sample(0, 0), Sample(10, 3)).p_value == 1.0
    assert difference_sequence(Sample(0, 0), Sample(10, 3), tau=0.1).high == 1.0
    assert homogeneity([Sample(0, 0), Sample(5, 1)]) == 1.0
    assert check_ratio([0, 0], [1, 1]).p_value == 1.0
    with pytest.raises(ValueError, match="successes"):
        Sample(1, 2)


def test_several_rates_are_compared_as_scipy_does() -> None:
    samples = [Sample(100, 10), Sample(120, 30), Sample(80, 12)]
    table = np.array([[sample.successes, sample.failures] for sample in samples])
    assert homogeneity(samples) == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_adjusted_p_values_are_those_of_statsmodels() -> None:
    p_values = [*np.random.default_rng(3).uniform(0, 0.2, 12).tolist(), 0.05, 0.05]
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert benjamini_hochberg(p_values) == pytest.approx(list(multipletests(p_values, method="fdr_bh")[1]))
    assert holm([]) == benjamini_hochberg([]) == []


def test_evidence_about_shares_is_savvis() -> None:
    shares = np.array([0.25, 0.25, 0.5])
    theirs = Multinomial(0.05, shares, k=100)
    counts = np.zeros(3, dtype=int)
    for step in np.random.default_rng(5).multinomial(40, [0.3, 0.2, 0.5], size=20):
        counts += step
        theirs.update(step)
        ours = multinomial_log_e([int(n) for n in counts], list(shares))
        assert ours == pytest.approx(math.log(theirs.odds), abs=1e-8)
    assert p_value_of(ours) == pytest.approx(min(1.0, theirs.calculate_p_value()))
    assert savvi.__name__ == "savvi"


def test_the_mixture_radius_is_that_of_the_paper() -> None:
    # Waudby-Smith et al. 2024, eq. 5, in their terms: t observations of standard deviation s, parameter rho.
    t, s, rho, alpha = 730, 0.4, 0.13, 0.05
    theirs = s * math.sqrt((t * rho**2 + 1) / (t**2 * rho**2) * math.log((t * rho**2 + 1) / alpha**2))
    assert mixture_radius(s * s / t, tau=rho * s, alpha=alpha) == pytest.approx(theirs)


@pytest.mark.parametrize("variance", [1e-6, 1e-4, 0.01])
def test_the_interval_excludes_zero_exactly_when_the_p_value_says_so(variance: float) -> None:
    radius = mixture_radius(variance, tau=0.03, alpha=0.05)
    assert (
        mixture_p_value(radius * 1.0001, variance, tau=0.03)
        < 0.05
        < mixture_p_value(radius * 0.9999, variance, tau=0.03)
    )


def test_nothing_is_said_before_the_burn_in() -> None:
    few = Sample(1000, BURN_IN - 1)
    assert difference_sequence(few, Sample(1000, 500), tau=0.05).p_value == 1.0
    assert difference_sequence(Sample(1000, BURN_IN), Sample(1000, 500), tau=0.05).p_value < 1e-6


def test_power_is_that_of_statsmodels_for_equal_variances() -> None:
    # NormalIndPower knows one standard deviation; a small effect makes the two of rates nearly equal.
    design = Design(baseline=0.5, ratio=2.0)
    effect = 0.02
    theirs = NormalIndPower().power(effect / 0.5, nobs1=3000, ratio=2.0, alpha=0.05)
    assert power_of(design, effect, 3000) == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("always", [False, True])
def test_the_planned_size_is_the_first_that_has_the_power(always: bool) -> None:
    design = Design(baseline=0.1, variants=2, power=0.9)
    units = sample_size(design, 0.02, always=always)
    power = power_always if always else power_of
    assert power(design, 0.02, units - 1) < 0.9 <= power(design, 0.02, units)
    assert detectable_effect(design, units, always=always) == pytest.approx(0.02, abs=1e-4)
    assert sample_size(design, 0.02, always=True) > sample_size(design, 0.02)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be planned"):
        sample_size(Design(baseline=0.9), 0.2)
    with pytest.raises(ValueError, match="baseline"):
        Design(baseline=1.5)
    with pytest.raises(ValueError, match="find no effect"):
        detectable_effect(Design(baseline=0.5), 3)


def test_peeking_inflates_the_fixed_test_and_not_the_sequence() -> None:
    rng = np.random.default_rng(11)
    looks = np.arange(200, 10_001, 200)
    fixed = always = 0
    runs = 200
    for _ in range(runs):
        opens = rng.binomial(200, 0.15, size=(2, len(looks))).cumsum(axis=1)
        pairs = [(Sample(int(n), int(a)), Sample(int(n), int(b))) for n, a, b in zip(looks, *opens, strict=True)]
        fixed += any(two_proportions(a, b).p_value < 0.05 for a, b in pairs)
        always += any(difference_sequence(a, b, tau=0.03).p_value < 0.05 for a, b in pairs)
    assert fixed / runs > 0.2
    assert always / runs <= 0.05


def test_the_guard_is_a_martingale_at_the_limit() -> None:
    limit = 0.02
    for sends, opt_outs in itertools.product((5, 10, 300), (0, 1, 5)):
        now = math.exp(guard_log_e(sends, opt_outs, limit))
        left = math.exp(guard_log_e(sends + 1, opt_outs + 1, limit))
        stayed = math.exp(guard_log_e(sends + 1, opt_outs, limit))
        assert limit * left + (1 - limit) * stayed == pytest.approx(now)


def test_the_guard_stops_what_drives_people_away_and_seldom_anything_else() -> None:
    rng = np.random.default_rng(2)
    sends = np.arange(1, 2001)

    def stopped(rate: float) -> bool:
        outs = (rng.random(2000) < rate).cumsum()
        return any(must_stop(int(n), int(y), 0.01) for n, y in zip(sends[::5], outs[::5], strict=True))

    assert sum(stopped(0.01) for _ in range(200)) <= 200 * GUARD_ALPHA + 4
    assert all(stopped(0.04) for _ in range(20))
    assert not must_stop(1000, 900, 0.0)
