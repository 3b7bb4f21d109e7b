"""Calibration: Platt's line, isotonic steps, and which of the two is applied."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from app.learning.calibration import BINS, Calibrator, apply_curve, isotonic
from app.learning.logistic import sigmoid


def bent(logit: float) -> float:
    """True log-odds where a model is right below 0 and far too sure above."""
    return logit if logit < 0 else logit * 0.2


def calibrated(count: int, truth: object = bent, seed: int = 1) -> tuple[Calibrator, float]:
    """A calibrator that saw `count` examples, and how much less loss than none it had on the second half."""
    rng = random.Random(seed)
    calibrator = Calibrator(0.001)
    gain = 0.0
    for at in range(count):
        raw = rng.gauss(0.0, 2.0)
        y = int(rng.random() < sigmoid(truth(raw)))
        p = calibrator.learn(raw, y, 1.0)
        if at >= count // 2:
            before = sigmoid(raw)
            gain += math.log((p if y else 1 - p) / (before if y else 1 - before))
    return calibrator, gain


def test_steps_are_applied_where_a_line_does_not_fit() -> None:
    calibrator, gain = calibrated(30_000)
    assert calibrator.state.isotonic
    assert gain > 100
    for logit in (-2.0, 1.0, 3.0):
        assert sigmoid(calibrator.logit(logit)) == pytest.approx(sigmoid(bent(logit)), abs=0.05)


def test_what_is_calibrated_is_left_alone() -> None:
    calibrator, gain = calibrated(20_000, lambda logit: logit)
    assert gain > -20
    for logit in (-3.0, 0.0, 2.0):
        assert sigmoid(calibrator.logit(logit)) == pytest.approx(sigmoid(logit), abs=0.04)


def test_calibration_never_changes_the_order() -> None:
    calibrator, _ = calibrated(30_000)
    values = [calibrator.logit(at / 10) for at in range(-80, 81)]
    assert all(a <= b for a, b in itertools.pairwise(values))


def test_adjacent_violators_are_pooled() -> None:
    xs, ys = isotonic([[1e6, 2e5, -1e6, 3e5], [1e6, 1e5, 0.0, 5e5], [1e6, 9e5, 1e6, 7e5]])
    assert xs == [-0.5, 1.0]
    assert sigmoid(ys[0]) == pytest.approx(0.15, abs=1e-3)
    assert sigmoid(ys[1]) == pytest.approx(0.9, abs=1e-3)


def test_few_examples_leave_a_step_near_what_was_predicted() -> None:
    _xs, ys = isotonic([[2.0, 2.0, -4.0, 0.24]])
    assert sigmoid(ys[0]) < 0.17


def test_beyond_the_outermost_step_the_model_still_has_a_say() -> None:
    curve = ([-1.0, 1.0], [-2.0, 0.5])
    assert apply_curve(curve, -3.0) == -4.0
    assert apply_curve(curve, 2.0) == 1.5


def test_the_state_is_bounded() -> None:
    calibrator, _ = calibrated(5_000)
    for raw in (-1e9, 1e9, 0.0):
        calibrator.learn(raw, 1, 5.0)
    assert len(calibrator.state.bins) <= BINS
    assert len(calibrator.state.knots_in) <= BINS
