"""The simulations, small: what they measure goes the way that their documents say."""

from __future__ import annotations

import pytest

from benchmarks.simulated import bandits, caps, hours, peeking, rewards, stops
from benchmarks.simulated.intervals import over_seeds


def test_choices_that_know_the_context_lose_less_than_those_that_do_not() -> None:
    lost = {choose: bandits.regret(1, choose, 1500) for choose in ("fixed", "contextual")}  # type: ignore[arg-type]
    assert lost["contextual"][-1] < 0.5 * lost["fixed"][-1]
    assert all(later >= earlier for earlier, later in zip(lost["fixed"], lost["fixed"][1:], strict=False))


def test_another_reward_chooses_another_wording() -> None:
    found = {reward: rewards.run(1, reward, 1500) for reward in ("open", "click_less_opt_outs")}
    assert found["open"]["share_bait"] > 0.8
    assert found["click_less_opt_outs"]["share_calm"] > 0.8


def test_the_hour_is_nearer_to_the_favourite_one() -> None:
    for rule in hours.RULES:
        found = hours.run(2, users=20, days=30, rule=rule)
        assert found["at_once"] < found["learned"] < found["oracle"]
        assert found["distance_h"] < found["distance_h_at_once"] - 1


def test_fewer_leave_under_an_adaptive_cap() -> None:
    fixed, adaptive = (caps.run(3, users=15, days=15, limit=2, adaptive=rule) for rule in (None, caps.ADAPTIVE))
    assert adaptive.left < fixed.left
    assert adaptive.sends < 2 * 15


def test_hardly_any_variant_is_stopped_and_no_challenger_promoted_without_cause() -> None:
    assert stops.false_stops(1, limit=0.02, variants=20, sends=2_000) < 0.1
    assert stops.false_promotions(1, duels=2, examples=2_000) == 0.0


def test_the_same_seed_is_the_same_world() -> None:
    assert caps.run(4, users=5, days=5, limit=2, adaptive=None) == caps.run(4, users=5, days=5, limit=2, adaptive=None)
    one, other = (peeking.false_alarms(1, rate=0.15, tau=0.03, experiments=2) for _ in range(2))
    assert one == other


def test_an_interval_over_seeds_is_students() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["high"] == pytest.approx(2.0 + 4.303 / 3**0.5, abs=1e-3)
