"""The console's figures: rates and quantiles from counters, intervals and calibration from counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.console.scrape import parse_metrics
from app.console.series import Rate, Window, auc, calibration, histogram_quantile, wilson
from app.experiments import fixed
from app.experiments.samples import Sample

INFINITE = float("inf")
examples = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(0, 1)), max_size=60)


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_interval_is_that_of_the_experiments(successes: int, failures: int) -> None:
    trials = successes + failures
    if trials:
        expected = fixed.wilson(Sample(trials, successes))
        assert wilson(successes, trials) == pytest.approx(expected, abs=1e-6)


def test_without_a_trial_every_rate_is_possible() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(examples)
def test_auc_is_the_share_of_pairs_in_the_right_order(found: list[tuple[float, int]]) -> None:
    ones = [score for score, label in found if label]
    zeros = [score for score, label in found if not label]
    if not ones or not zeros:
        assert auc(found) is None
        return
    won = sum((a > b) + (a == b) / 2 for a in ones for b in zeros)
    assert auc(found) == pytest.approx(won / (len(ones) * len(zeros)))


@given(examples)
def test_every_example_is_in_one_bin(found: list[tuple[float, int]]) -> None:
    bins = calibration(found)
    assert sum(one["examples"] for one in bins) == len(found)
    assert len(bins) <= 10
    for one in bins:
        assert one["low"] <= one["observed"] + 1e-9
        assert one["observed"] <= one["high"] + 1e-9


@pytest.mark.parametrize(
    ("share", "seconds"),
    [(0.5, 0.1), (0.25, 0.05), (0.75, 0.15), (1.0, 0.2)],
)
def test_a_quantile_is_interpolated_in_its_bucket(share: float, seconds: float) -> None:
    assert histogram_quantile(share, {0.1: 10, 0.2: 20, INFINITE: 20}) == pytest.approx(seconds)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert histogram_quantile(0.99, {0.1: 1, INFINITE: 100}) == 0.1


def test_without_observations_there_is_no_quantile() -> None:
    assert histogram_quantile(0.5, {0.1: 0, INFINITE: 0}) is None
    assert histogram_quantile(0.5, {}) is None


def test_a_rate_survives_a_restart_of_the_process() -> None:
    rate = Rate(over=2)
    assert rate.take(0.0, 100.0) is None
    assert rate.take(1.0, 110.0) == 10.0
    assert rate.take(2.0, 5.0) is None  # it counts from 0 again
    assert rate.take(3.0, 25.0) == 20.0


def test_a_window_forgets_what_is_older() -> None:
    window = Window(over=2)
    for number in (10.0, 20.0, 20.0, 50.0):
        seen = window.take({1.0: number})
    assert seen == {1.0: 30.0}


def test_metrics_are_read_with_their_labels() -> None:
    lines = (
        "# HELP x y",
        'nudge_a_total{b="c d",e="f\\"g"} 3.0',
        'nudge_a_created{b="c"} 9.0',
        'nudge_h_bucket{le="+Inf"} 2.0',
        "other 1",
    )
    text = "\n".join(lines)
    samples = parse_metrics(text)
    assert samples["nudge_a_total"] == [({"b": "c d", "e": 'f\\"g'}, 3.0)]
    assert math.isinf(float(samples["nudge_h_bucket"][0][0]["le"]))
    assert set(samples) == {"nudge_a_total", "nudge_h_bucket"}
