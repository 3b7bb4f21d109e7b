"""Drift detectors: quiet while nothing changes, loud when the loss rises, and the same after a restart."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest
from river import drift

from app.learning.drift import ADWIN_DELTA, BLOCK, BLOCKS_MAX, AdaptiveWindow, CampaignDrift, LossDrift
from app.learning.logistic import log_loss, sigmoid
from app.model_feed import DETECTORS

SEEDS = 20
CAMPAIGNS = 8
CHANGE = 5_000
NEVER = 100_000

Detector = LossDrift | AdaptiveWindow | CampaignDrift


@cache
def losses(seed: int, count: int, off: float = 0.0, off_campaign: int = -1) -> list[tuple[str, float]]:
    """(campaign, log loss) of a model that is right, or `off` by that much log-odds (in one campaign, or in all)."""
    rng = random.Random(seed)
    result = []
    for number in range(count):
        campaign = number % CAMPAIGNS
        logit = rng.gauss(-1.5, 1.5)
        wrong = off if off_campaign in (-1, campaign) else 0.0
        result.append((f"c{campaign}", log_loss(sigmoid(logit), int(rng.random() < sigmoid(logit + wrong)))))
    return result


def alarms(detector: Detector, stream: list[tuple[str, float]]) -> list[int]:
    """At which examples the alarm goes off."""
    if isinstance(detector, CampaignDrift):
        return [number for number, (name, loss) in enumerate(stream) if detector.update(name, loss)]
    return [number for number, (_, loss) in enumerate(stream) if detector.update(loss)]


def delay(detector: Detector, seed: int, off: float, campaign: int = -1) -> int:
    """How many examples after the change the alarm goes off first; `NEVER` when it does not in 10,000."""
    stream = losses(seed, CHANGE) + losses(seed + 1_000, 10_000, off, campaign)
    return next(iter(alarms(detector, stream)), CHANGE + NEVER) - CHANGE


@pytest.mark.parametrize("make", [LossDrift, AdaptiveWindow, CampaignDrift])
def test_where_nothing_changes_no_detector_fires_in_20_seeds(make: Callable[[], Detector]) -> None:
    assert [alarms(make(), losses(seed, CHANGE)) for seed in range(SEEDS)] == [[]] * SEEDS


def test_page_hinkleys_tolerance_does_not_wear_off() -> None:
    # With River's default forgetting (alpha .9999) this test fired about every 40,000 examples.
    assert alarms(LossDrift(), losses(2, 60_000)) == []


def test_page_hinkley_is_rivers_bit_for_bit() -> None:
    ours = LossDrift()
    rivers = drift.PageHinkley(min_instances=200, delta=0.05, threshold=50.0, alpha=1.0, mode="up")
    found = []
    for number, (_, loss) in enumerate(losses(5, 3_000) + losses(6, 3_000, 2.0) + losses(7, 3_000, 5.0)):
        alarm = ours.update(loss)
        rivers.update(loss)
        assert alarm == rivers.drift_detected, number
        if alarm:
            found.append(number)
            rivers._reset()
        state = ours.state
        low = float("inf") if state.total_min is None else state.total_min
        kept = (state.count, state.mean, state.total, low)
        assert kept == (rivers._x_mean.n, rivers._x_mean.get(), rivers._sum_increase, rivers._min_increase)
    assert len(found) == ours.state.detections > 1


def test_the_adaptive_window_is_rivers() -> None:
    ours, rivers = AdaptiveWindow(), drift.ADWIN(delta=ADWIN_DELTA, clock=1)
    for _, loss in losses(7, 40 * BLOCK) + losses(8, 120 * BLOCK, 2.0):
        before = len(ours.state.means)
        alarm = ours.update(loss)
        if len(ours.state.means) == before + 1:
            rivers.update(ours.state.means[-1])
            assert not rivers.drift_detected
            assert ours._estimation() == rivers.estimation
        if alarm:
            break
    assert ours.state.detections == 1


@pytest.mark.parametrize("make", [LossDrift, AdaptiveWindow, CampaignDrift])
def test_a_large_change_is_found_by_all(make: Callable[[], Detector]) -> None:
    assert all(0 <= delay(make(), seed, 2.0) < 1_500 for seed in range(5))


def test_a_change_below_page_hinkleys_tolerance_is_found_by_the_adaptive_window() -> None:
    assert [delay(LossDrift(delta=0.2), seed, 0.6) for seed in range(3)] == [NEVER] * 3
    assert all(0 <= delay(AdaptiveWindow(), seed, 0.6) < NEVER for seed in range(3))


def test_one_campaign_of_eight_is_found_first_by_the_detector_that_looks_at_each() -> None:
    for seed in range(3):
        found = {make: delay(make(), seed, 2.0, 3) for make in (LossDrift, AdaptiveWindow, CampaignDrift)}
        assert 0 <= found[CampaignDrift] < min(found[LossDrift], found[AdaptiveWindow])


def test_a_falling_loss_is_no_alarm() -> None:
    window = AdaptiveWindow()
    stream = losses(1, 10_000, 2.0) + losses(2, 10_000)
    assert not any(window.update(loss) for _, loss in stream)
    assert window.state.detections == 0
    assert len(window.state.means) < 10_000 // BLOCK + 20  # it saw the fall, and began anew


def test_a_restored_adaptive_window_is_the_one_that_never_stopped() -> None:
    stream = losses(3, 3 * BLOCK * BLOCKS_MAX // 2) + losses(4, 10_000, 2.0)
    straight, stopped = AdaptiveWindow(), AdaptiveWindow()
    fired = []
    for number, (_, loss) in enumerate(stream):
        if number % 1_777 == 0:
            stopped = AdaptiveWindow(stopped.state)
        fired.append((straight.update(loss), stopped.update(loss)))
        assert len(straight.state.means) <= BLOCKS_MAX
    assert any(a for a, _ in fired)
    assert all(a == b for a, b in fired)
    assert straight.state == stopped.state


def test_every_detector_has_a_counter() -> None:
    assert set(DETECTORS) == {"page_hinkley", "adwin", "campaign"}
