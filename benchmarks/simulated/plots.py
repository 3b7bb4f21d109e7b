"""The simulations' curves, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.simulated import peeking

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"fixed": "#888888", "always": "#0a7d5a", "thompson": "#c77c11", "contextual": "#0a5fa8"}


def _band(axes: Any, x: Any, runs: Sequence[Sequence[float]], name: str, label: str) -> None:
    curves = np.array(runs)
    mean = curves.mean(axis=0)
    half = 1.96 * curves.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else 0 * mean
    axes.plot(x, mean, color=COLOURS[name], label=label)
    axes.fill_between(x, mean - half, mean + half, color=COLOURS[name], alpha=0.2, linewidth=0)


def draw(
    folder: Path,
    alarms: Mapping[str, Sequence[Sequence[float]]],
    regrets: Mapping[str, Sequence[Sequence[float]]],
    figures: Mapping[str, Any],
) -> None:
    """Write `peeking.png`, `regret.png` and `caps.png`; bands are 95 % intervals of the mean over seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(6, 3.6))
    x = np.arange(1, peeking.LOOKS + 1) * peeking.UNITS_PER_LOOK
    _band(axes, x, alarms["fixed"], "fixed", "fixed-horizon test")
    _band(axes, x, alarms["always"], "always", "confidence sequence")
    axes.axhline(0.05, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="users of each variant, a look every 100", ylabel="false alarms so far", ylim=(0, None))
    _save(figure, axes, folder / "peeking.png")
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name, label in (("fixed", "uniform"), ("thompson", "Thompson"), ("contextual", "contextual")):
        steps = np.arange(1, len(regrets[name][0]) + 1)
        _band(axes, steps, regrets[name], name, label)
    axes.set(xlabel="decisions", ylabel="opens lost to the oracle", ylim=(0, None))
    _save(figure, axes, folder / "regret.png")
    figure, axes = plt.subplots(figsize=(6, 3.6))
    shades = {"fixed": ("#bbbbbb", "#888888", "#444444"), "adaptive": ("#7cc9ae", "#0a7d5a", "#064f39")}
    rules = [(f"{kind}_{at}", shade) for kind, row in shades.items() for at, shade in enumerate(row, 1)]
    for rule, colour in rules:
        opens, left = figures[f"caps_{rule}_opens"], figures[f"caps_{rule}_left"]
        bars = {
            "xerr": [[opens["mean"] - opens["low"]], [opens["high"] - opens["mean"]]],
            "yerr": [[left["mean"] - left["low"]], [left["high"] - left["mean"]]],
        }
        axes.errorbar(opens["mean"], left["mean"], **bars, fmt="o", color=colour, label=rule.replace("_", " cap "))
    axes.set(xlabel="opens a user in 30 days", ylabel="share of users who left", ylim=(0, None))
    _save(figure, axes, folder / "caps.png")


def _save(figure: Any, axes: Any, path: Path) -> None:
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
