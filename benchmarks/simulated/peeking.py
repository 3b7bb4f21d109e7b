"""A/A experiments looked at all the time: how often is a difference found that is not there?"""

from __future__ import annotations

from typing import Final

import numpy as np

from app.experiments.fixed import two_proportions
from app.experiments.samples import Sample
from app.experiments.sequential import difference_sequence

LOOKS: Final = 100
UNITS_PER_LOOK: Final = 100
ALPHA: Final = 0.05


def false_alarms(seed: int, *, rate: float, tau: float, experiments: int) -> dict[str, list[float]]:
    """Share of A/A experiments that had found a difference by each look, shape (`LOOKS`,), by either method."""
    rng = np.random.default_rng(seed)
    found = {"fixed": np.zeros(LOOKS), "always": np.zeros(LOOKS)}
    for _ in range(experiments):
        counts = rng.binomial(UNITS_PER_LOOK, rate, size=(2, LOOKS)).cumsum(axis=1)
        first = {"fixed": LOOKS, "always": LOOKS}
        for look in range(LOOKS):
            units = UNITS_PER_LOOK * (look + 1)
            a, b = Sample(units, int(counts[0, look])), Sample(units, int(counts[1, look]))
            if first["fixed"] == LOOKS and two_proportions(a, b).p_value < ALPHA:
                first["fixed"] = look
            if first["always"] == LOOKS and difference_sequence(a, b, tau=tau).p_value < ALPHA:
                first["always"] = look
            if max(first.values()) < LOOKS:
                break
        for name, look in first.items():
            found[name][look:] += 1
    return {name: list(shares / experiments) for name, shares in found.items()}
