"""Opens after the horizon, in a simulation with known truth: what ignoring, repeating and correcting them is worth.

P(open) follows a user's interest; how late an open comes differs between campaigns, so that one third of the opens of
the slow one and none of the quick one miss the horizon. Scores are those of a worker that gets a snapshot every 200
examples; they are judged on the last half, against all opens, late ones included.

- `ignored`: a late open changes nothing.
- `repeated`: it is one more example, label 1, weight 1.
- `corrected`: the same with weight 1 / (1 - p) (`app.learning.late`), as `late_opens` in a policy does.
- `known`: what cannot be had: each example with its final label at once.
"""

from __future__ import annotations

import random
import statistics
from typing import Final

from app.learning.kinds import new_model
from app.learning.late import correction_weight
from app.learning.logistic import log_loss, sigmoid

WAYS: Final = ("ignored", "repeated", "corrected", "known")
CAMPAIGNS: Final = {"quick": 0.0, "slow": 0.35}
"""Share of the opens that come after the horizon."""
SNAPSHOT_EVERY: Final = 200
LATE_BY: Final = 500
"""A late open comes so many examples after its own."""


def run(way: str, seed: int, count: int, kind: str = "open-mix") -> tuple[float, float, float]:
    """(log loss, predicted over opened, the same of the slow campaign), over the last half."""
    rng = random.Random(seed)
    model = new_model(kind)
    served = model.freeze(0)
    losses, predicted, opened = [], dict.fromkeys(CAMPAIGNS, 0.0), dict.fromkeys(CAMPAIGNS, 0)
    due: list[tuple[int, dict[str, float], float]] = []
    for number in range(count):
        if number % SNAPSHOT_EVERY == 0:
            served = model.freeze(number)
        interest, campaign = rng.gauss(0.0, 1.0), rng.choice(tuple(CAMPAIGNS))
        x = {"interest": interest, f"c={campaign}": 1.0}
        p = served.open_probability(x)
        y = int(rng.random() < sigmoid(-1.0 + 1.2 * interest))
        late = y == 1 and rng.random() < CAMPAIGNS[campaign]
        if number >= count // 2:
            losses.append(log_loss(p, y))
            predicted[campaign] += p
            opened[campaign] += y
        model.learn_one(x, y if way == "known" else int(y and not late))
        if late and way in ("repeated", "corrected"):
            due.append((number + LATE_BY, x, p))
        while due and due[0][0] <= number:
            _, features, score = due.pop(0)
            model.learn_one(features, 1, correction_weight(score) if way == "corrected" else 1.0)
    ratio = sum(predicted.values()) / sum(opened.values())
    return statistics.fmean(losses), ratio, predicted["slow"] / opened["slow"]


def measure(count: int = 10_000, seeds: int = 5) -> dict[str, float]:
    """Means over the seeds."""
    result = {}
    for way in WAYS:
        runs = [run(way, seed, count) for seed in range(seeds)]
        for name, values in zip(
            ("log_loss", "calibration_ratio", "slow_calibration_ratio"), zip(*runs, strict=True), strict=True
        ):
            result[f"late_{way}_{name}"] = round(statistics.fmean(values), 4)
    return result
