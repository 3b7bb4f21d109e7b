"""Who will buy, and who will fall silent? Progressive validation of propensity models, every label when it was known.

    NUDGE_DATA=/path/to/data python -m benchmarks.models_propensity --json

Two real streams, neither in this repository: a gift shop's invoices of a year (`online_retail_2010_2011.parquet`) and
an app's click stream of nine days (`taobao_100k.csv.gz`). Users are looked at on the engine's own grid
(`app.core.propensity.next_look`), told what a worker tells (`features_of`), scored by a model frozen once a snapshot
interval, and learned from when a worker's label goes out (`label_due_ms`). (A worker looks daily as well; here only
looks that end or begin an example are taken, which are the same.) Nothing is chosen on these streams, kinds and
settings are the defaults of a policy.

The second half of the examples, by time, is judged beside the base rate of the first and, where scikit-learn is
installed, beside offline gradient boosting that is trained once on every label known when the second half begins.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import heapq
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from app.core import logged
from app.core.activity import Activity, fold
from app.core.local_time import hour_of_week
from app.core.plan import ModelPlan
from app.core.profile import Profile
from app.core.propensity import PRIOR, features_of, label_due_ms, next_look
from app.core.row_parts import Propensity
from app.learning.kinds import new_model
from app.learning.logistic import log_loss
from benchmarks.common import machine
from schemas.events import ORDER_COMPLETED

RETAIL: Final = "online_retail_2010_2011.parquet"
TAOBAO: Final = "taobao_100k.csv.gz"
RETAIL_ZONE: Final = "Europe/London"
TAOBAO_ZONE: Final = "Asia/Shanghai"
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
_TAOBAO_NAMES: Final = {"pv": "Product Viewed", "cart": "Product Added", "fav": "Product Favourited"}
_TAOBAO_MS: Final = (1_511_539_200_000, 1_512_316_800_000)


class Happened(NamedTuple):
    """An event of a user; `revenue_milli` of an order."""

    at_ms: int
    user: str
    event: str
    revenue_milli: int = 0


class Example(NamedTuple):
    """What was known at a look, and what came of it."""

    begun_ms: int
    matured_ms: int
    features: dict[str, float]
    score: float
    label: int


class Task(NamedTuple):
    """A model over a stream; snapshots are `interval_ms` apart."""

    file: str
    model: ModelPlan
    interval_ms: int


TASKS: Final = {
    "retail_purchase": Task(RETAIL, ModelPlan(event=ORDER_COMPLETED, horizon_ms=30 * DAY_MS), DAY_MS),
    "retail_churn": Task(RETAIL, ModelPlan(horizon_ms=60 * DAY_MS), DAY_MS),
    "taobao_purchase": Task(TAOBAO, ModelPlan(event=ORDER_COMPLETED, horizon_ms=DAY_MS), HOUR_MS),
    "taobao_churn": Task(TAOBAO, ModelPlan(horizon_ms=DAY_MS), HOUR_MS),
}


def read_retail(path: Path) -> list[Happened]:
    """The orders of known customers; a cancelled or free one is none."""
    import pyarrow.parquet as parquet  # noqa: PLC0415 - an optional extra

    names = ["InvoiceNo", "CustomerID", "InvoiceDate", "Quantity", "UnitPrice"]
    columns = (parquet.read_table(path, columns=names).column(name).to_pylist() for name in names)
    orders: dict[tuple[int, int], tuple[str, int]] = {}
    for invoice, customer, at, quantity, price in zip(*columns, strict=True):
        if customer and quantity > 0 and price > 0:
            key = (invoice, int(customer))
            first, worth = orders.get(key, (at, 0))
            orders[key] = (first, worth + round(quantity * price * 1000))
    zone = ZoneInfo(RETAIL_ZONE)
    return sorted(
        Happened(
            int(datetime.fromisoformat(at).replace(tzinfo=zone).timestamp() * 1000), str(user), ORDER_COMPLETED, worth
        )
        for (_, user), (at, worth) in orders.items()
    )


def read_taobao(path: Path) -> list[Happened]:
    """All events of the log's nine days."""
    with gzip.open(path, "rt", newline="") as lines:
        events = [
            Happened(int(row["ts"]) * 1000, row["user_id"], _TAOBAO_NAMES.get(row["behavior"], ORDER_COMPLETED))
            for row in csv.DictReader(lines)
        ]
    return sorted(event for event in events if _TAOBAO_MS[0] <= event.at_ms < _TAOBAO_MS[1])


@dataclass
class _Person:
    row: Profile = field(default_factory=lambda: Profile(propensity=Propensity(Activity())))
    begun_ms: int = 0
    score: float = 0.0
    features: dict[str, float] = field(default_factory=dict)
    happened: bool = False
    waits: bool = False
    """Whether a look is on the agenda."""


class Replay:
    """The stream's users, one model, and the looks that are due."""

    def __init__(self, task: Task, timezone: str, kind: str) -> None:
        self.task = task
        self.timezone = timezone
        self.model = new_model(kind, slow_start=True)
        self.people: dict[str, _Person] = {}
        self.due: list[tuple[int, str]] = []
        self.examples: list[Example] = []
        self._frozen = self.model.freeze(0)
        self._frozen_ms = 0

    def run(self, events: list[Happened]) -> list[Example]:
        """All examples that matured within the stream, by when they began."""
        for event in events:
            while self.due and self.due[0][0] < event.at_ms:
                self._look(*heapq.heappop(self.due))
            self._fold(event)
        while self.due and self.due[0][0] <= events[-1].at_ms:
            self._look(*heapq.heappop(self.due))
        return sorted(self.examples, key=lambda example: example.begun_ms)

    def _fold(self, event: Happened) -> None:
        person = self.people.setdefault(event.user, _Person())
        row, plan = person.row, self.task.model
        assert row.propensity is not None, "made with one"
        fold(row.propensity.activity, event.at_ms, hour_of_week("", self.timezone, event.at_ms))
        if event.event == ORDER_COMPLETED:
            row.orders += 1
            row.order_ms = event.at_ms
            row.revenue_milli += event.revenue_milli
        if person.begun_ms and person.begun_ms < event.at_ms <= person.begun_ms + plan.horizon_ms:
            person.happened |= plan.event in ("", event.event)
        if not person.waits:
            self._wait(event.user, person, next_look(event.user, "model", self.task.model, event.at_ms))

    def _wait(self, user: str, person: _Person, due_ms: int) -> None:
        person.waits = True
        heapq.heappush(self.due, (due_ms, user))

    def _look(self, now_ms: int, user: str) -> None:
        person, plan = self.people[user], self.task.model
        person.waits = False
        if person.begun_ms:
            label = int(person.happened if plan.event else not person.happened)
            self.examples.append(Example(person.begun_ms, now_ms, person.features, person.score, label))
            self.model.learn_one(person.features, label)
            person.begun_ms = 0
        row = person.row
        assert row.propensity is not None, "made with one"
        if now_ms - row.propensity.activity.at_ms > plan.horizon_ms:
            return
        if now_ms - self._frozen_ms >= self.task.interval_ms:
            self._frozen, self._frozen_ms = self.model.freeze(0), now_ms
        person.features = logged.rounded(features_of(row, now_ms, hour_of_week("", self.timezone, now_ms)))
        person.score = self._frozen.open_probability(person.features) if self.examples else PRIOR
        person.begun_ms, person.happened = now_ms, False
        self._wait(user, person, label_due_ms(now_ms + plan.horizon_ms, plan))


def examples_of(name: str, data: Path, kind: str = "open-mix") -> list[Example]:
    """A task's examples, scored by a model of `kind`."""
    task = TASKS[name]
    retail = task.file == RETAIL
    events = (read_retail if retail else read_taobao)(data / task.file)
    return Replay(task, RETAIL_ZONE if retail else TAOBAO_ZONE, kind).run(events)


def judge(name: str, scores: list[float], labels: list[int]) -> dict[str, float]:
    """As `benchmarks.models.judge`."""
    from benchmarks.models import judge as judged  # noqa: PLC0415 - it imports this one

    return judged(name, scores, labels)


def measure(name: str, data: Path, kind: str = "open-mix") -> dict[str, float]:
    """The second half, the rivals beside it."""
    found = examples_of(name, data, kind)
    half = len(found) // 2
    first, last = found[:half], found[half:]
    truth = [one.label for one in last]
    base = sum(one.label for one in first) / half
    result = {
        f"{name}_examples": float(len(found)),
        f"{name}_positive_share": round(sum(truth) / len(truth), 4),
        **judge(name, [one.score for one in last], truth),
        f"{name}_constant_log_loss": round(math.fsum(log_loss(base, y) for y in truth) / len(truth), 4),
    }
    boosted = list(_boosted([one for one in found if one.matured_ms <= last[0].begun_ms], last))
    return result | (judge(f"{name}_boosting", boosted, truth) if boosted else {})


def _boosted(known: list[Example], last: list[Example]) -> Iterator[float]:
    """Offline gradient boosting on all labels that were known before; nothing without scikit-learn."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier  # type: ignore[import-not-found] # noqa: PLC0415
    except ImportError:
        return
    names = sorted({name for one in known for name in one.features})
    x = [[one.features.get(name, 0.0) for name in names] for one in known]
    model = HistGradientBoostingClassifier(max_iter=150, max_leaf_nodes=15, learning_rate=0.05, random_state=1)
    model.fit(x, [one.label for one in known])
    yield from model.predict_proba([[one.features.get(name, 0.0) for name in names] for one in last])[:, 1]


def measure_all(data: Path, kind: str = "open-mix") -> dict[str, float]:
    """Every task whose file is there."""
    result: dict[str, float] = {}
    for name, task in TASKS.items():
        if (data / task.file).is_file():
            result |= measure(name, data, kind)
    return result


def main() -> None:
    """Print the figures; the last line is JSON with --json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=os.environ.get("NUDGE_DATA"), help="folder of the data sets")
    arguments.add_argument("--kind", default="open-mix", help="another model kind")
    arguments.add_argument("--json", action="store_true", help="one JSON object as the last line")
    chosen = arguments.parse_args()
    if not chosen.data:
        raise SystemExit("give --data or NUDGE_DATA")
    result: dict[str, Any] = {**measure_all(Path(chosen.data), chosen.kind), "kind": chosen.kind, "machine": machine()}
    for name, value in result.items():
        print(f"{name:44} {value}")
    if chosen.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
