"""Reliability: what was predicted beside what came, in ten bins of equal size."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

BINS: Final = 10

Bins = list[tuple[float, float, int]]
"""(mean score, share of positives, examples)."""


def reliability(scores: list[float], labels: list[int]) -> Bins:
    """Bins of equal size, by ascending score.

    Examples
    --------
    >>> reliability([0.1] * 10 + [0.9] * 10, [0] * 10 + [1] * 10)[-1]
    (0.9, 1.0, 2)
    """
    ordered = sorted(zip(scores, labels, strict=True))
    edges = [len(ordered) * at // BINS for at in range(BINS + 1)]
    bins = []
    for low, high in itertools.pairwise(edges):
        part = ordered[low:high]
        if part:
            mean = sum(score for score, _ in part) / len(part)
            bins.append((mean, sum(label for _, label in part) / len(part), len(part)))
    return bins


def reliability_plot(curves: dict[str, Bins], path: Path) -> None:
    """Write the curves as a PNG. Needs matplotlib, which the `dev` extra brings."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(4.5, 4.5), dpi=110)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="perfect")
    for name, bins in curves.items():
        axes.plot([p for p, _, _ in bins], [y for _, y, _ in bins], marker="o", markersize=4, label=name)
    axes.set_xlabel("predicted")
    axes.set_ylabel("opened")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
