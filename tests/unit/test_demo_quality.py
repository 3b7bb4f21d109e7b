import math
import random

import pytest

from app.demo.quality import area_under_roc, percentile, quality_of


def brute_auc(examples):
    wins = pairs = 0.0
    for score, label in examples:
        for other, other_label in examples:
            if label and not other_label:
                pairs += 1
                wins += 1.0 if score > other else 0.5 if score == other else 0.0
    return wins / pairs


def test_auc_equals_counting_pairs_with_ties():
    rng = random.Random(3)
    examples = [(rng.randrange(10) / 10, int(rng.random() < 0.4)) for _ in range(200)]
    assert area_under_roc(examples) == pytest.approx(brute_auc(examples))


def test_the_best_constant_is_the_base_rate():
    quality = quality_of([(0.25, 1), (0.25, 0), (0.25, 0), (0.25, 0)])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert quality.log_loss == quality.log_loss_constant == pytest.approx(entropy, abs=1e-4)
    assert quality.calibration_ratio == 1.0
    assert quality.auc == 0.5


def test_figures_are_missing_where_they_are_undefined():
    assert quality_of([]).log_loss is None
    one_class = quality_of([(0.2, 0)])
    assert one_class.auc is None
    assert one_class.calibration_ratio is None
    assert one_class.log_loss_constant == 0.0


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4)])
def test_percentile_is_the_nearest_rank(share, value):
    assert percentile([1, 2, 3, 4], share) == value


def test_percentile_of_nothing_is_none():
    assert percentile([], 0.5) is None
