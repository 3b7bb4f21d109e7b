"""Progressive metrics against brute force."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from river import metrics

from app.learning.progressive import (
    BINS,
    BLOCK,
    CAMPAIGN_BLOCK,
    CAMPAIGNS_MAX,
    Progressive,
    Track,
    histogram_auc,
    score_bin,
)


def brute_auc(scores: list[tuple[float, int]]) -> float:
    won = pairs = 0.0
    for p, y in scores:
        for q, z in scores:
            if y and not z:
                pairs += 1
                won += 1.0 if p > q else 0.5 if p == q else 0.0
    return won / pairs


def stream(count: int) -> list[tuple[float, float, int]]:
    rng = random.Random(5)
    result = []
    for _ in range(count):
        truth = rng.betavariate(1, 5)
        blurred = min(max(truth + rng.gauss(0, 0.05), 0.001), 0.999)
        result.append((blurred, truth, int(rng.random() < truth)))
    return result


def test_metrics_equal_brute_force() -> None:
    data = stream(800)
    ours = Progressive()
    for served, own, y in data:
        ours.add(served, own, y)
    got = ours.to_dict()
    for prefix, at in (("", 0), ("learner_", 1)):
        pairs = [(row[at], row[2]) for row in data]
        loss = -sum(math.log(p if y else 1 - p) for p, y in pairs) / len(pairs)
        assert got[f"{prefix}log_loss"] == pytest.approx(loss, rel=1e-9)
        assert got[f"{prefix}brier"] == pytest.approx(sum((p - y) ** 2 for p, y in pairs) / len(pairs))
        assert got[f"{prefix}calibration_ratio"] == pytest.approx(sum(p for p, _ in pairs) / sum(y for _, y in pairs))
        assert got[f"{prefix}auc"] == pytest.approx(brute_auc(pairs), abs=2e-3)
    assert got["examples"] == 800
    assert got["positives"] == sum(y for _, _, y in data)


def test_the_constant_predictor_knows_only_labels_before_its_own() -> None:
    labels = [0, 1, 1, 0, 0, 0, 1]
    metrics = Progressive()
    loss = 0.0
    for at, y in enumerate(labels):
        rate = (sum(labels[:at]) + 0.5) / (at + 1)
        loss -= math.log(rate if y else 1 - rate)
        metrics.add(0.5, 0.5, y)
    assert metrics.to_dict()["log_loss_constant"] == pytest.approx(loss / len(labels))


def test_auc_of_labels_of_one_kind_is_undefined_and_left_out() -> None:
    track = Track()
    track.add(0.4, 1, 0.9)
    assert "auc" not in track.to_dict()
    assert math.isnan(histogram_auc(track.bins_1, track.bins_0))


def test_nothing_seen_gives_no_metric_but_the_count() -> None:
    assert Progressive().to_dict() == {"examples": 0.0, "positives": 0.0}


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-300, 1 - 1e-16])
def test_a_certain_and_wrong_score_costs_a_finite_loss(p: float) -> None:
    metrics = Progressive()
    metrics.add(p, p, 0)
    metrics.add(p, p, 1)
    assert all(math.isfinite(value) for value in metrics.to_dict().values())


@pytest.mark.parametrize("score", [math.nan, -3.0, math.inf])
def test_a_served_score_that_is_no_probability_counts_as_not_knowing(score: float) -> None:
    metrics = Progressive()
    metrics.add(score, 0.2, 1)
    assert metrics.to_dict()["log_loss"] == pytest.approx(math.log(2))


def test_bins_rise_with_the_score_and_tell_rare_scores_apart() -> None:
    grid = [0.0, 0.001, 0.002, 0.01, 0.02, 0.1, 0.3, 0.5, 0.9, 0.99, 0.999, 1.0]
    bins = [score_bin(p) for p in grid]
    assert bins == sorted(set(bins))
    assert bins[0] == 0
    assert bins[-1] == BINS - 1


def test_metrics_read_back_are_the_same() -> None:
    metrics = Progressive()
    for served, own, y in stream(100):
        metrics.add(served, own, y)
    assert msgspec.json.decode(msgspec.json.encode(metrics), type=Progressive) == metrics


def test_precision_recall_and_f1_are_those_of_river() -> None:
    data = stream(3_000)
    ours = Progressive()
    for served, own, y in data:
        ours.add(served, own, y)
    threshold = ours.threshold
    theirs = {"precision": metrics.Precision(), "recall": metrics.Recall(), "f1": metrics.F1()}
    for served, _own, y in data:
        for metric in theirs.values():
            metric.update(bool(y), score_bin(served) >= score_bin(threshold))
    got = ours.to_dict()
    for name, metric in theirs.items():
        assert got[name] == pytest.approx(metric.get())


def test_recent_metrics_are_those_of_the_newest_examples() -> None:
    data = stream(BLOCK * 3 + 500)
    ours = Progressive()
    for served, own, y in data:
        ours.add(served, own, y)
    newest = Progressive()
    for served, own, y in data[BLOCK * 2 :]:
        newest.add(served, own, y)
    for name in ("auc", "log_loss", "brier", "calibration_ratio"):
        assert ours.to_dict()[f"recent_{name}"] == pytest.approx(newest.to_dict()[name])
        assert ours.to_dict()[f"recent_learner_{name}"] == pytest.approx(newest.to_dict()[f"learner_{name}"])


def test_campaigns_are_bounded_and_the_smallest_goes() -> None:
    ours = Progressive()
    for number in range(CAMPAIGNS_MAX * 3):
        for _ in range(3 if number == 0 else 1):
            ours.add(0.3, 0.3, 1, f"c{number}")
    assert len(ours.campaigns) == CAMPAIGNS_MAX
    found = ours.campaigns["c0"].to_dict()
    assert {name: found[name] for name in ("examples", "log_loss", "calibration_ratio")} == pytest.approx(
        {"examples": 3.0, "log_loss": -math.log(0.3), "calibration_ratio": 0.3}
    )


def test_a_campaigns_newest_examples_are_judged_as_river_does() -> None:
    rng = random.Random(4)
    ours, whole = Progressive(), metrics.ROCAUC(n_thresholds=64)
    precision, recall, f1 = metrics.Precision(), metrics.Recall(), metrics.F1()
    for number in range(4 * CAMPAIGN_BLOCK):
        p = rng.random() ** 2
        y = int(rng.random() < p)
        says = p >= ours.threshold
        whole.update(bool(y), p)
        if number >= 2 * CAMPAIGN_BLOCK:
            for metric in (precision, recall, f1):
                metric.update(bool(y), says)
        ours.add(p, p, y, "cart")
    found = ours.campaigns["cart"].to_dict()
    assert found["auc"] == pytest.approx(whole.get(), abs=0.01)
    assert found["recent_precision"] == pytest.approx(precision.get())
    assert found["recent_recall"] == pytest.approx(recall.get())
    assert found["recent_f1"] == pytest.approx(f1.get())
