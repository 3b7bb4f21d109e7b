"""The Open Bandit logs: is the uniform policy's value, estimated from another policy's log, that of its own log?"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.experiments.off_policy import Log, evaluate

ITEMS = 80
LOGS = ("random", "bts")


def read_log(path: Path) -> Log:
    """A log of `zozotown` banners: item, position (as context), click and logged propensity."""
    with gzip.open(path, "rt", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return Log(
        arms=np.array([int(row["item_id"]) for row in rows], dtype=np.int64),
        rewards=np.array([float(row["click"]) for row in rows]),
        behaviour=np.array([float(row["propensity_score"]) for row in rows]),
        contexts=np.array([[float(row["position"] == str(at)) for at in (1, 2, 3)] for row in rows]),
    )


def uniform_value(folder: Path) -> dict[str, Any]:
    """The uniform policy's evaluation from each log, and clicks a log."""
    found: dict[str, Any] = {}
    for name in LOGS:
        log = read_log(folder / f"{name}_all.csv.gz")
        target = np.full((len(log.arms), ITEMS), 1 / ITEMS)
        found[name] = msgspec.to_builtins(evaluate(log, target)) | {"clicks": int(log.rewards.sum())}
    truth = found["random"]["logged"]["value"]
    for estimate in ("snips", "dr"):
        interval = found["bts"][estimate]
        found[f"{estimate}_contains_random"] = interval["low"] <= truth <= interval["high"]
    return found
