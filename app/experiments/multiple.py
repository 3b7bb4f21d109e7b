"""Many comparisons at once: p-values adjusted so that a threshold keeps its meaning for all of them together."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the chance of any false alarm (family-wise), whatever the dependence, in the order given.

    References
    ----------
    Holm, 1979: A simple sequentially rejective multiple test procedure.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the share of false alarms among alarms, for independent or positively dependent comparisons.

    References
    ----------
    Benjamini, Hochberg, 1995: Controlling the False Discovery Rate.
    """
    return [float(p) for p in stats.false_discovery_control(p_values)] if p_values else []
