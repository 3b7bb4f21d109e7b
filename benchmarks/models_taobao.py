"""Will a shopper be active in the next hour? Progressive validation on an app's click stream.

Reads `taobao_100k.csv.gz` (100,001 events of 984 users in nine days; not in this repository). At every full hour, each
user seen before is an example: its features are those of the row at that instant (`app.core.activity`), its label is
whether an event follows within the hour, and it is learned when that hour has passed, before the next examples are
scored. Days 8 and 9 are a sales weekend, busier and less regular than any day before.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.core.activity import Activity, features, fold
from app.learning.contract import Model
from app.learning.mix import MixModel
from app.learning.mix_state import GENERAL, MixConfig
from app.learning.trees import TreesModel
from app.learning.trees_state import TreesConfig

FILE: Final = "taobao_100k.csv.gz"
HOUR_S: Final = 3600
UTC_OFFSET_HOURS: Final = 8
START_S: Final = 1_511_539_200
"""2017-11-25 00:00 local, the first full hour of the log's window."""
END_S: Final = START_S + 9 * 24 * HOUR_S


def read_events(path: Path) -> list[tuple[int, str]]:
    """(Unix seconds, user) in order of time; events outside the window are left out."""
    with gzip.open(path, "rt", newline="") as lines:
        events = [(int(row["ts"]), row["user_id"]) for row in csv.DictReader(lines)]
    return sorted(event for event in events if START_S <= event[0] < END_S)


def _local_hour(at_s: int) -> int:
    return (at_s // HOUR_S + UTC_OFFSET_HOURS) % 24


def examples(events: list[tuple[int, str]]) -> Iterator[list[tuple[dict[str, float], int]]]:
    """For each hour the examples that begin with it; a label is that of the hour which then passes."""
    rows: dict[str, Activity] = {}
    at = 0
    for hour_s in range(START_S, END_S - HOUR_S + 1, HOUR_S):
        known = {user: features(row, hour_s * 1000, _local_hour(hour_s)) for user, row in rows.items()}
        active = set()
        while at < len(events) and events[at][0] < hour_s + HOUR_S:
            at_s, user = events[at]
            active.add(user)
            fold(rows.setdefault(user, Activity()), at_s * 1000, _local_hour(at_s))
            at += 1
        yield [(x, int(user in active)) for user, x in known.items()]


MIX: Final = MixConfig(prior=0.05, experts=GENERAL)


def replay(path: Path, *, trees: bool = False) -> tuple[list[float], list[int]]:
    """Scores and labels of all examples; each hour is scored by what was learned from the hours before."""
    model: Model = TreesModel(TreesConfig(mix=MIX)) if trees else MixModel(MIX)
    scores: list[float] = []
    labels: list[int] = []
    for hour in examples(read_events(path)):
        probability = model.freeze(0).open_probability
        scores.extend(probability(x) for x, _ in hour)
        labels.extend(y for _, y in hour)
        for x, y in hour:
            model.learn_one(x, y)
    return scores, labels
