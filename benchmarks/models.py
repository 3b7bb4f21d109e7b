"""How well the models predict: progressive validation on real data, every label learned when it was known.

    NUDGE_DATA=/path/to/data python -m benchmarks.models --json [--plot reliability.png]

Newsletter opens, a week late: reads `ncsu_sends.csv.gz` (622,614 sends of 54 broadcasts; not in this repository) and
replays it through the engine's own features, learner and frozen scorer: a broadcast is scored by what the learner knew
when it went out, and its labels are learned a week later. The last third of the sends is judged, beside the base rate
of the first two thirds and the user's smoothed open rate alone.

The log holds no opening time (an open counts from the send's), one message a broadcast, and 54 send moments, which
cannot support a send-time claim: the features of the hour are left out unless --hours is given.

Beside it: who is active in the next hour (`benchmarks.models_taobao`), who will buy or fall silent
(`benchmarks.models_propensity`), small sets that River brings against River's own examples (`benchmarks.models_river`),
and opens after the horizon, in a simulation (`benchmarks.models_late`).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from app.core import open_rates
from app.core.campaign import Campaign, Trigger
from app.core.features import open_features, smoothed_open_rate
from app.core.label_history import push_label
from app.core.plan import Plan, event_id
from app.core.profile import Profile
from app.core.row_parts import Pending, SendMemory
from app.learning.learner import Learner
from app.learning.logistic import log_loss
from benchmarks import models_late, models_propensity, models_river, models_taobao
from benchmarks.common import machine
from benchmarks.models_plot import reliability, reliability_plot
from schemas.events import NOTIFICATION_OPENED
from schemas.outcomes import Outcome

FILE: Final = "ncsu_sends.csv.gz"
HORIZON_MS: Final = 7 * 86_400_000
HOUR_FEATURES: Final = ("hour_sin", "hour_cos", "hour_response", "weekend=")
_OPENED = event_id(NOTIFICATION_OPENED)


class Send(NamedTuple):
    """One row of the log."""

    sent_ms: int
    user: str
    campaign: str
    opened: int
    clicked: int


class Scored(NamedTuple):
    """A send with what was known when it went out."""

    send: Send
    features: dict[str, float]
    score: float
    rate: float
    """The user's smoothed open rate: the simplest rival."""


def read_sends(path: Path) -> Iterator[Send]:
    """The log in order of time."""
    with gzip.open(path, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            sent_ms = int(datetime.fromisoformat(row["sent_at"]).timestamp() * 1000)
            yield Send(sent_ms, row["user_id"], row["campaign_id"], int(row["opened_7d"]), int(row["clicked"]))


@dataclass
class Replay:
    """The log's users as rows, and one learner."""

    hours: bool = False
    kind: str = "open-mix"
    rows: dict[str, Profile] = field(default_factory=dict)
    waiting: list[list[Scored]] = field(default_factory=list)
    plan: Plan = field(default_factory=lambda: Plan(version="benchmark", default_timezone="America/New_York"))

    def __post_init__(self) -> None:
        self.learner = Learner("open", self.kind)

    def broadcast(self, sends: list[Send]) -> list[Scored]:
        """Learn what has matured, then score one broadcast with a frozen model, as a worker would."""
        now_ms = sends[0].sent_ms
        while self.waiting and self.waiting[0][0].send.sent_ms + HORIZON_MS <= now_ms:
            for scored in self.waiting.pop(0):
                self._mature(scored, now_ms)
        name = sends[0].campaign
        campaign = Campaign(name=name, category="newsletter", trigger=Trigger("event"), variants=())
        probability = self.learner.scorer().open_probability
        result = []
        for send in sends:
            row = self.rows.setdefault(send.user, Profile(first_ms=now_ms))
            x = open_features(row, campaign, now_ms, self.plan)
            if not self.hours:
                for feature in HOUR_FEATURES:
                    x.pop(feature, None)
            rate = smoothed_open_rate(row.opened, row.sent - len(row.pending))
            result.append(Scored(send, x, probability(x), rate))
        for send in sends:
            self._remember(send)
        self.waiting.append(result)
        return result

    def _remember(self, send: Send) -> None:
        row = self.rows[send.user]
        row.sent += 1
        row.sends = [*row.sends[-19:], SendMemory(send.sent_ms, 0, 0)]
        row.pending = [*row.pending, Pending("", send.campaign, "", send.sent_ms, send.sent_ms, 0.0, 0, 1.0, b"")]

    def _mature(self, scored: Scored, now_ms: int) -> None:
        send = scored.send
        row = self.rows[send.user]
        row.pending = row.pending[1:]
        row.labels = push_label(row.labels, send.opened)
        row.open_rates = open_rates.count(
            row.open_rates, send.sent_ms, labels=1.0, opens=send.opened, clicks=send.clicked
        )
        row.opened += send.opened
        row.clicked += send.clicked
        row.ignored_run = 0 if send.opened else row.ignored_run + 1
        if send.opened:
            row.last[_OPENED] = send.sent_ms
        self.learner.learn(
            Outcome(
                id=f"{send.campaign}:{send.user}",
                model="open",
                label=send.opened,
                features=scored.features,
                score=scored.score,
                model_version=0,
                campaign=send.campaign,
                decided_ms=send.sent_ms,
                matured_ms=now_ms,
            )
        )


def exact_auc(scores: list[float], labels: list[int]) -> float:
    """Area under the ROC curve with ties counted half, by ranks (Mann-Whitney).

    Examples
    --------
    >>> exact_auc([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    0.875
    """
    ordered = sorted(zip(scores, labels, strict=True))
    positives = sum(labels)
    below = won = 0.0
    for _score, group in itertools.groupby(ordered, key=lambda pair: pair[0]):
        tied = [label for _, label in group]
        ones = sum(tied)
        won += ones * (below + (len(tied) - ones) / 2)
        below += len(tied) - ones
    return won / (positives * (len(labels) - positives))


def judge(name: str, scores: list[float], labels: list[int]) -> dict[str, float]:
    """AUC, log loss and calibration ratio, with `name` before each."""
    losses = [log_loss(p, y) for p, y in zip(scores, labels, strict=True)]
    return {
        f"{name}_auc": round(exact_auc(scores, labels), 4),
        f"{name}_log_loss": round(math.fsum(losses) / len(losses), 4),
        f"{name}_calibration_ratio": round(math.fsum(scores) / sum(labels), 3),
    }


def base_loss(labels: list[int], first: int) -> float:
    """Log loss on what follows the `first` labels of predicting their mean."""
    base = sum(labels[:first]) / first
    return math.fsum(log_loss(base, y) for y in labels[first:]) / (len(labels) - first)


def measure(path: Path, *, hours: bool = False, kind: str = "open-mix", plot: Path | None = None) -> dict[str, float]:
    """Replay the newsletters and judge their last third."""
    replay = Replay(hours=hours, kind=kind)
    scored: list[Scored] = []
    start = time.perf_counter()
    for _campaign, sends in itertools.groupby(read_sends(path), key=lambda send: send.campaign):
        scored.extend(one._replace(features={}) for one in replay.broadcast(list(sends)))
    elapsed = time.perf_counter() - start
    first = len(scored) * 2 // 3
    labels = [one.send.opened for one in scored]
    last = scored[first:]
    truth = labels[first:]
    bins = reliability([one.score for one in last], truth)
    if plot is not None:
        reliability_plot({"open probability, newsletters": bins}, plot)
    return {
        "ncsu_sends": len(scored),
        "ncsu_judged": len(last),
        **judge("ncsu", [one.score for one in last], truth),
        "ncsu_calibration_error": round(sum(n * abs(p - y) for p, y, n in bins) / len(last), 4),
        **judge("user_rate", [one.rate for one in last], truth),
        "constant_log_loss": round(base_loss(labels, first), 4),
        "ncsu_seconds": round(elapsed, 1),
    }


def measure_taobao(path: Path) -> dict[str, float]:
    """Replay the click stream; judged whole, from the first example on, and its first two and last third alone."""
    result: dict[str, float] = {}
    for name, trees in (("taobao", False), ("taobao_trees", True)):
        scores, labels = models_taobao.replay(path, trees=trees)
        first = len(scores) * 2 // 3
        result |= {
            "taobao_examples": len(scores),
            **judge(name, scores, labels),
            **judge(f"{name}_first_two_thirds", scores[:first], labels[:first]),
            **judge(f"{name}_last_third", scores[first:], labels[first:]),
            "taobao_last_third_constant_log_loss": round(base_loss(labels, first), 4),
        }
    return result


def measure_river() -> dict[str, float]:
    """Each bundled set, over all of it: our model, and River's examples beside it."""
    result: dict[str, float] = {}
    for name, (scores, labels) in models_river.replay().items():
        result |= {key: value for key, value in judge(name, scores, labels).items() if "ratio" not in key}
    return result


def main() -> None:
    """Print the figures; the last line is JSON with --json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=os.environ.get("NUDGE_DATA"), help="folder of the data sets")
    arguments.add_argument("--hours", action="store_true", help="newsletters: use the features of the hour as well")
    arguments.add_argument("--kind", default="open-mix", help="newsletters: another model kind")
    arguments.add_argument("--plot", type=Path, help="newsletters: write a reliability plot (needs matplotlib)")
    arguments.add_argument("--json", action="store_true", help="one JSON object as the last line")
    chosen = arguments.parse_args()
    result: dict[str, object] = {**measure_river(), **models_late.measure()}
    skipped = []
    for file, run in (
        (FILE, lambda path: measure(path, hours=chosen.hours, kind=chosen.kind, plot=chosen.plot)),
        (models_taobao.FILE, measure_taobao),
    ):
        path = Path(chosen.data) / file if chosen.data else None
        if path is not None and path.is_file():
            result |= run(path)
        else:
            skipped.append(f"{path} is not there" if path else f"{file}: give --data or NUDGE_DATA")
    if chosen.data:
        result |= models_propensity.measure_all(Path(chosen.data))
    result |= {"kind": chosen.kind, "hours": chosen.hours, "skipped": skipped, "machine": machine()}
    for name, value in result.items():
        print(f"{name:32} {value}")
    if chosen.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
