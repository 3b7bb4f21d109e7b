"""Experiments, choices, hours and caps, on simulated people of known truth, over seeds with intervals.

    python -m benchmarks.simulations --json --data DIR --plots benchmarks/plots

Nothing here is told to the engine: it is asked as in production (its own choosing, learning, fold and caps) and judged
by the truth. With --data (or NUDGE_DATA) the Open Bandit logs are evaluated as well. `--only caps` runs one part.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, get_args

from app.core.plan import AdaptiveCaps
from benchmarks.common import machine
from benchmarks.simulated import bandits, caps, hours, open_bandit, peeking, rewards, stops
from benchmarks.simulated.intervals import over_seeds

RATES = {"open": (0.15, 0.03), "opt_out": (0.02, 0.005)}
LIMITS = (0.005, 0.02)
CAPS = (1, 2, 3)
PARTS = ("peeking", "stops", "bandits", "rewards", "hours", "caps", "open_bandit")
RULES: dict[str, tuple[int, AdaptiveCaps | None]] = {f"fixed_{limit}": (limit, None) for limit in CAPS} | {
    f"adaptive_{limit}": (limit, caps.ADAPTIVE) for limit in CAPS
}


def run_peeking(seeds: int, scale: float) -> tuple[dict[str, Any], dict[str, list[list[float]]]]:
    """False positive rates by the last look, and the curves of the first rate."""
    figures: dict[str, Any] = {}
    curves: dict[str, list[list[float]]] = {}
    for name, (rate, tau) in RATES.items():
        runs = [
            peeking.false_alarms(seed, rate=rate, tau=tau, experiments=max(10, int(100 * scale)))
            for seed in range(seeds)
        ]
        for method in ("fixed", "always"):
            figures[f"false_positive_rate_{method}_{name}"] = over_seeds([one[method][-1] for one in runs])
            if name == "open":
                curves[method] = [one[method] for one in runs]
    return figures, curves


def run_stops(seeds: int, scale: float) -> dict[str, Any]:
    """Variants stopped and challengers promoted without cause."""
    variants, duels = max(5, int(25 * scale)), max(2, int(10 * scale))
    figures = {
        f"false_stops_at_{limit:g}": over_seeds(
            [stops.false_stops(seed, limit=limit, variants=variants) for seed in range(seeds)]
        )
        for limit in LIMITS
    }
    won = [stops.false_promotions(seed, duels=duels) for seed in range(seeds)]
    return figures | {"false_promotions": over_seeds(won)}


def run_bandits(seeds: int, scale: float) -> tuple[dict[str, Any], dict[str, list[list[float]]]]:
    """Regret a thousand decisions of each way to choose; the oracle's is 0. `fixed` is uniform."""
    decisions = max(400, int(5000 * scale))
    curves = {
        choose: [bandits.regret(seed, choose, decisions) for seed in range(seeds)]
        for choose in get_args(bandits.Choose)
    }
    figures: dict[str, Any] = {"bandit_decisions": decisions}
    for choose, runs in curves.items():
        figures[f"regret_per_1000_{choose}"] = over_seeds([1000 * one[-1] / decisions for one in runs])
        last = decisions * 4 // 5
        late = [1000 * (one[-1] - one[last - 1]) / (decisions - last) for one in runs]
        figures[f"regret_per_1000_{choose}_last_fifth"] = over_seeds(late)
    ratios = [best[-1] / even[-1] for best, even in zip(curves["contextual"], curves["fixed"], strict=True)]
    figures["regret_contextual_over_uniform"] = over_seeds(ratios)
    return figures, curves


def run_rewards(seeds: int, scale: float) -> dict[str, Any]:
    """Which wording each reward ends with, and what that earns."""
    people = max(200, int(3000 * scale))
    figures: dict[str, Any] = {"rewards_people": people}
    for reward in rewards.REWARDS:
        runs = [rewards.run(seed, reward, people) for seed in range(seeds)]
        figures |= {f"rewards_{reward}_{name}": over_seeds([one[name] for one in runs]) for name in runs[0]}
    return figures


def run_hours(seeds: int, scale: float) -> dict[str, Any]:
    """Open rates and distances from the favourite hour, by rule and truth, and what Thompson sampling changes."""
    users = max(20, int(60 * scale))
    figures: dict[str, Any] = {}
    for truth in get_args(hours.Truth):
        found = {
            rule: [hours.run(seed, users=users, days=45, rule=rule, truth=truth) for seed in range(seeds)]
            for rule in hours.RULES
        }
        for rule, runs in found.items():
            name = f"hours_{truth}_{rule}"
            figures |= {f"{name}_{key}": over_seeds([one[key] for one in runs]) for key in runs[0]}
            share = [(one["learned"] - one["at_once"]) / (one["oracle"] - one["at_once"]) for one in runs]
            figures[f"{name}_share_of_possible_gain"] = over_seeds(share)
        pairs = list(zip(found["thompson"], found["best"], strict=True))
        for key in ("regret_per_1000", "learned", "distance_h"):
            name = f"hours_{truth}_{key}_thompson_minus_best"
            figures[name] = over_seeds([drawn[key] - best[key] for drawn, best in pairs])
    return figures


def run_caps(seeds: int, scale: float) -> dict[str, Any]:
    """What each rule sends, what is opened, and who leaves."""
    users = max(10, int(60 * scale))
    runs = {
        name: [caps.run(seed, users=users, days=30, limit=limit, adaptive=rule) for seed in range(seeds)]
        for name, (limit, rule) in RULES.items()
    }
    figures: dict[str, Any] = {}
    for name, found in runs.items():
        figures[f"caps_{name}_sends"] = over_seeds([one.sends for one in found])
        figures[f"caps_{name}_opens"] = over_seeds([one.opens for one in found])
        figures[f"caps_{name}_left"] = over_seeds([one.left for one in found])
    for mine, other in ((1, 1), (2, 2), (3, 3), (2, 1)):
        pairs = list(zip(runs[f"adaptive_{mine}"], runs[f"fixed_{other}"], strict=True))
        name = f"adaptive_{mine}_minus_fixed_{other}"
        figures[f"caps_left_{name}"] = over_seeds([one.left - than.left for one, than in pairs])
        figures[f"caps_opens_{name}"] = over_seeds([one.opens - than.opens for one, than in pairs])
    return figures


def main() -> None:
    """Print the figures; the last line is JSON with --json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=20, help="independent runs (default: %(default)s)")
    arguments.add_argument("--scale", type=float, default=1.0, help="of each run's size (default: %(default)s)")
    arguments.add_argument("--only", choices=PARTS, default="", help="one part")
    arguments.add_argument("--data", type=Path, default=os.environ.get("NUDGE_DATA"), help="folder of the data sets")
    arguments.add_argument("--plots", type=Path, help="write plots as PNG into this folder (needs matplotlib)")
    arguments.add_argument("--json", action="store_true", help="one JSON object as the last line")
    chosen = arguments.parse_args()
    if chosen.plots and chosen.only:
        raise SystemExit("--plots draws all parts: leave --only out")
    start = time.perf_counter()
    parts = [part for part in PARTS if chosen.only in ("", part)]
    figures: dict[str, Any] = {}
    alarms: dict[str, list[list[float]]] = {}
    regrets: dict[str, list[list[float]]] = {}
    if "peeking" in parts:
        found, alarms = run_peeking(chosen.seeds, chosen.scale)
        figures |= found
    if "bandits" in parts:
        found, regrets = run_bandits(chosen.seeds, chosen.scale)
        figures |= found
    for part, run in (("stops", run_stops), ("rewards", run_rewards), ("hours", run_hours), ("caps", run_caps)):
        if part in parts:
            figures |= run(chosen.seeds, chosen.scale)
    logs = Path(chosen.data) / "obd" if chosen.data else None
    if "open_bandit" in parts:
        figures["open_bandit"] = {"skipped": "give --data or NUDGE_DATA"}
        if logs is not None and logs.is_dir():
            figures["open_bandit"] = open_bandit.uniform_value(logs)
    if chosen.plots:
        from benchmarks.simulated import plots  # noqa: PLC0415 - matplotlib, which only plots need

        plots.draw(chosen.plots, alarms, regrets, figures)
    for name, value in figures.items():
        shown = value
        if isinstance(value, dict) and "mean" in value:
            shown = f"{value['mean']:.4f}   {value['low']:.4f} … {value['high']:.4f}"
        print(f"{name:44} {shown}")
    if chosen.json:
        about = {"seeds": chosen.seeds, "seconds": round(time.perf_counter() - start, 1), "machine": machine()}
        print(json.dumps(figures | about))


if __name__ == "__main__":
    main()
