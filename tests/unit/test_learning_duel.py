"""Champion against challenger: the bound holds at every look."""

from __future__ import annotations

import random

from app.learning.duel import DIFFERENCE_MAX, EXAMPLES_MIN, Duel


def looks(gain: float, examples: int, seed: int) -> bool:
    """Whether the challenger was promoted at any of the looks, one after each example."""
    rng = random.Random(seed)
    duel = Duel()
    for _ in range(examples):
        duel.add(0.4 + rng.gauss(gain, 0.2), 0.4)
        if duel.challenger_wins:
            return True
    return False


def test_a_challenger_that_is_no_better_is_hardly_ever_promoted_however_often_one_looks() -> None:
    promoted = sum(looks(0.0, 6_000, seed) for seed in range(100))
    assert promoted <= 4


def test_a_gain_of_a_tenth_of_the_spread_is_found_within_six_thousand_examples() -> None:
    assert all(looks(0.02, 6_000, seed) for seed in range(20))


def test_nobody_is_promoted_early() -> None:
    duel = Duel()
    for _ in range(EXAMPLES_MIN - 1):
        duel.add(1.0, 0.1)
        assert not duel.challenger_wins


def test_one_surprise_counts_for_little() -> None:
    duel = Duel()
    duel.add(13.8, 0.0)
    assert duel.mean == DIFFERENCE_MAX
