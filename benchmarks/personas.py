"""How well personas are found in the stream, beside River's k-means and k-means over everything at once.

    NUDGE_DATA=/path/to/data python -m benchmarks.personas --json

Kinds: a simulated population of known kinds (tests/support/population.py), so the adjusted Rand index is known. Demo:
the people of the demo (`app.demo`), real purchases of the Complete Journey study; known of each is only at which time
of the day they like to come. Taobao and Online Retail: real logs without a truth (not in this repository; skipped with
a reason where absent), so only the silhouette is.

All see the same vectors in the same order, one a user and day, and are judged by the newest vector of each user, in the
same scaled space (the learner's last scales): the silhouette is Rousseeuw's, of users and not of points. The offline
k-means has all of those vectors at once, the best of 20 beginnings; River's k-means gets vectors that are scaled and
centred already, and as many clusters as ours found, none of which it can know by itself.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from river import cluster
from scipy.cluster.vq import kmeans2

from app.core.activity import Activity, fold
from app.core.interest import added, level_at
from app.core.local_time import hour_of_week
from app.core.persona_vector import vector_of
from app.core.plan import PersonaPlan
from app.core.profile import Profile
from app.learning.microclusters import squared_distances
from app.learning.personas import PersonaLearner
from app.learning.served_personas import read_personas
from benchmarks.common import machine
from schemas.outcomes import Outcome
from tests.support.population import DAY, KINDS, Kind, adjusted_rand, live, outcome, people

SEEDS: Final = range(3)
Vector = Mapping[str, float]
Seen = tuple[int, str, str, float | None]
"""Time (ms), user, category, and the revenue of an order."""
Stream = list[tuple[int, str, Outcome]]
"""User, kind (empty when nobody knows) and the record with their vector."""
HARD: Final[Mapping[str, Kind]] = {
    **KINDS,
    "evening grocery": Kind(1.0, 18.0, 0.6, 25, {"grocery": 8, "drinks": 2}, spread_h=2.5),
    "bargain shoes": Kind(0.5, 12.0, 0.3, 20, {"shoes": 7, "bags": 3}, spread_h=3.0, device="android"),
}
"""Two more kinds, which share their categories with others."""


@dataclass
class Row:
    """What a row would hold of one user."""

    truth: str = ""
    zone: str = "UTC"
    weekly: bool = False
    """Looked at on one day of the week only, which saves time in a long log."""
    profile: Profile = field(default_factory=Profile)
    activity: Activity = field(default_factory=Activity)

    def see(self, at_ms: int, category: str, revenue: float | None = None) -> None:
        """One event; an order when it has a revenue."""
        profile = self.profile
        profile.first_ms = min(profile.first_ms, at_ms) if profile.first_ms else at_ms
        fold(self.activity, at_ms, hour_of_week(self.zone, "UTC", at_ms) % 24)
        if category:
            known, level = profile.affinity.get(category), level_at(at_ms)
            profile.affinity[category] = level if known is None else added(known, level)
            if len(profile.affinity) > 20:
                del profile.affinity[min(profile.affinity, key=lambda name: profile.affinity[name])]
        if revenue is not None:
            profile.orders += 1
            profile.revenue_milli += int(1000 * revenue)
            profile.order_ms = max(profile.order_ms, at_ms)


def replay(rows: Mapping[str, Row], events: Iterable[Seen]) -> Iterator[tuple[Row, Outcome]]:
    """Fold events (time, user, category, revenue) in order; after each day the vector of who was there in 28 days."""
    day = -1
    numbers = {user: number for number, user in enumerate(rows)}
    for at_ms, user, category, revenue in events:
        while day >= 0 and at_ms // DAY > day:
            day += 1
            yield from _looks(rows, numbers, day * DAY)
        day = max(day, at_ms // DAY)
        rows[user].see(at_ms, category, revenue)
    yield from _looks(rows, numbers, (day + 1) * DAY)


def _looks(rows: Mapping[str, Row], numbers: Mapping[str, int], now_ms: int) -> Iterator[tuple[Row, Outcome]]:
    week = now_ms // DAY % 7
    for user, row in rows.items():
        if row.weekly and numbers[user] % 7 != week:
            continue
        if row.activity.at_ms and now_ms - row.activity.at_ms <= 28 * DAY:
            x = vector_of(row.profile, row.activity, now_ms)
            yield row, outcome(numbers[user], now_ms // DAY, x, now_ms)


def kinds(seed: int, which: Mapping[str, Kind], users: int = 300, days: int = 28) -> Stream:
    """Vectors of simulated users of known kinds."""
    rng = Random(seed)
    population = people(dict.fromkeys(which, users // len(which)), rng)
    return [(user.number, user.kind, one) for user, one in live(population, range(days), rng, which)]


def demo(seed: int = 7) -> Stream:
    """Vectors of the demo's people; their kind is the time of the day they like."""
    from app.demo.audience import meet  # noqa: PLC0415
    from app.demo.faults import Shares  # noqa: PLC0415
    from app.demo.journey import load_journey  # noqa: PLC0415
    from app.demo.script import write_script  # noqa: PLC0415
    from schemas.events import decode_event, epoch_ms  # noqa: PLC0415

    rows: dict[str, Row] = {}
    events = []
    for delivery in write_script(load_journey(), seed, Shares(late=0.0, duplicate=0.0, malformed=0.0)):
        event = decode_event(delivery.value, delivery.key)
        assert hasattr(event, "properties"), "there are no faults"
        user = delivery.key.decode()
        if user not in rows:
            person = meet(user, seed)
            hour = min((8.5, 12.5, 19.5), key=lambda liked, at=person.favourite_hour: abs((at - liked + 12) % 24 - 12))
            rows[user] = Row(str(hour), person.timezone)
            rows[user].profile.device = person.device
        stamp = event.timestamp
        at_ms = stamp if isinstance(stamp, int) else epoch_ms(str(stamp))
        revenue = event.properties.get("revenue")
        category = event.properties.get("category") or ""
        events.append((at_ms, user, str(category), float(revenue) if revenue is not None else None))
    events.sort(key=lambda one: one[:2])
    return _numbered(rows, events)


def taobao(data: Path) -> Stream:
    """Vectors of an app's shoppers; a purchase has no price in this log."""
    rows: dict[str, Row] = {}
    events = []
    with gzip.open(data / "taobao_100k.csv.gz", "rt", newline="") as lines:
        for line in csv.DictReader(lines):
            at_s = int(line["ts"])
            if 1_511_539_200 <= at_s < 1_511_539_200 + 9 * 86_400:
                user = line["user_id"]
                rows.setdefault(user, Row(zone="Asia/Shanghai"))
                bought = line["behavior"] == "buy"
                events.append((at_s * 1000, user, line["category_id"], 1.0 if bought else None))
    events.sort(key=lambda one: one[:2])
    return _numbered(rows, events)


def retail(data: Path) -> Stream:
    """Vectors of a gift shop's customers, from invoices of a year; there are no categories."""
    import pandas as pd  # noqa: PLC0415

    table = pd.read_parquet(data / "online_retail_2010_2011.parquet")
    table = table[(table["CustomerID"].fillna(0) > 0) & (table["Quantity"] > 0)]
    at = pd.to_datetime(table["InvoiceDate"])
    table = table.assign(value=table["UnitPrice"] * table["Quantity"], at=at)
    orders = table.groupby(["InvoiceNo", "CustomerID"], sort=False).agg(at=("at", "min"), value=("value", "sum"))
    orders = orders.reset_index()
    rows: dict[str, Row] = {}
    events = []
    for order in orders.itertuples(index=False):
        user = str(int(order.CustomerID))
        rows.setdefault(user, Row(weekly=True))
        events.append((int(order.at.timestamp() * 1000), user, "", float(order.value)))
    events.sort(key=lambda one: one[:2])
    return _numbered(rows, events)


def _numbered(rows: Mapping[str, Row], events: list[Any]) -> Stream:
    numbers = {id(row): number for number, row in enumerate(rows.values())}
    return [(numbers[id(row)], row.truth, one) for row, one in replay(rows, events)]


def silhouette_of(points: Any, labels: list[int], seed: int = 1, size: int = 1_500) -> float:
    """Rousseeuw's mean silhouette, of a sample of at most `size` users."""
    labels_of = np.asarray(labels)
    if len(points) > size:
        chosen = np.random.default_rng(seed).choice(len(points), size, replace=False)
        points, labels_of = points[chosen], labels_of[chosen]
    distances = np.sqrt(squared_distances(points, points))
    clusters = sorted(set(labels_of.tolist()))
    if len(clusters) < 2:
        return 0.0
    sizes = np.array([(labels_of == one).sum() for one in clusters])
    sums = np.stack([distances[:, labels_of == one].sum(axis=1) for one in clusters], axis=1)
    at = np.array([clusters.index(one) for one in labels_of.tolist()])
    rows = np.arange(len(at))
    own = sums[rows, at] / np.maximum(sizes[at] - 1, 1)
    others = sums / sizes
    others[rows, at] = np.inf
    nearest = others.min(axis=1)
    scores = np.where(sizes[at] > 1, (nearest - own) / np.maximum(np.maximum(own, nearest), 1e-12), 0.0)
    return float(scores.mean())


def compare(stream: Stream, plan: PersonaPlan) -> dict[str, Any]:
    """Ours, River's and offline k-means on one stream of vectors."""
    learner = PersonaLearner("open")
    learner.configure(plan)
    began = time.process_time()
    for _, _, one in stream:
        learner.learn(one)
    seconds = time.process_time() - began
    newest = {user: (truth, one.features) for user, truth, one in stream}
    table = read_personas(learner.snapshot(0, 0, 0))
    columns = list(table.columns)
    scales = np.array([table.columns[name][1] for name in columns])
    usual = dict(zip(columns, learner.served.usual, strict=True))

    def scaled(x: Vector) -> Any:
        return np.array([x.get(name, usual[name]) for name in columns]) * scales

    points = np.stack([scaled(x) for _, x in newest.values()])
    truth = [kind for kind, _ in newest.values()]
    known = len(set(truth)) > 1

    def judged(labels: list[int]) -> dict[str, float]:
        found = {"clusters": len(set(labels)), "silhouette": round(silhouette_of(points, labels), 3)}
        return found | ({"adjusted_rand": round(adjusted_rand(truth, labels), 3)} if known else {})

    ours = [persona.id for _, x in newest.values() if (persona := table.nearest(x)) is not None]
    result: dict[str, Any] = {
        "users": len(newest),
        "vectors": len(stream),
        "kinds": len(set(truth)) if known else None,
        "us_per_vector": round(1e6 * seconds / len(stream), 1),
        "snapshot_bytes": len(learner.snapshot(0, 0, 0).state),
        "names": {f"p{one.id}": [one.name, round(one.share, 3)] for one in learner.served.personas},
        "ours": judged(ours),
    }
    count = len(set(ours))
    for name, number in (("", count), ("_less", count - 1), ("_more", count + 1)):
        if number > 1:
            result[f"offline_kmeans{name}"] = judged(_offline(points, number))
    return result | _river(stream, scaled, newest, count, judged)


def _offline(points: Any, count: int) -> list[int]:
    """Labels of the best of 20 k-means over everything."""
    runs = [kmeans2(points, count, minit="++", seed=seed) for seed in range(20)]
    labels: list[int] = min(runs, key=lambda run: _inertia(points, run))[1].tolist()
    return labels


def _inertia(points: Any, found: Any) -> float:
    centroids, labels = found
    return float(((points - centroids[labels]) ** 2).sum())


def _river(stream: Any, scaled: Any, newest: Any, count: int, judged: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    rivals = {
        "river_kmeans_default": (1.0, 0.5),
        "river_kmeans_tuned": (0.1, 0.05),  # sigma of the beginnings, half-life: the best of nine on kinds_1
    }
    centre = np.mean([scaled(x) for _, x in newest.values()], axis=0)  # its centroids begin around 0
    vectors = [dict(enumerate((scaled(one.features) - centre).tolist())) for _, _, one in stream]
    last = [dict(enumerate((scaled(x) - centre).tolist())) for _, x in newest.values()]
    for name, (sigma, halflife) in rivals.items():
        began = time.process_time()
        runs = []
        for seed in SEEDS:
            model = cluster.KMeans(n_clusters=count, halflife=halflife, sigma=sigma, seed=seed)
            for x in vectors:
                model.learn_one(x)
            runs.append(judged([model.predict_one(x) for x in last]))
        seconds = (time.process_time() - began) / len(SEEDS)
        result[name] = {key: round(float(np.mean([run[key] for run in runs])), 3) for key in runs[0]}
        result[name] |= {f"worst_{key}": min(run[key] for run in runs) for key in runs[0] if key != "clusters"}
        result[name]["us_per_vector"] = round(1e6 * seconds / len(vectors), 1)
    return result


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NUDGE_DATA", "nowhere")))
    parser.add_argument("--only", default="", help="only what begins so")
    parser.add_argument("--count-min", type=int, default=1, help="at least so many personas, as the policy may say")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine()}
    sources: dict[str, Any] = {f"kinds_{seed}": (lambda seed=seed: kinds(seed, KINDS)) for seed in (1, 2, 3)}
    sources |= {f"hard_{seed}": (lambda seed=seed: kinds(seed, HARD, 420)) for seed in (1, 2, 3)}
    sources |= {"demo": demo, "taobao": lambda: taobao(options.data), "retail": lambda: retail(options.data)}
    for name, source in sources.items():
        if options.only and not name.startswith(options.only):
            continue
        try:
            stream = source()
        except (OSError, TypeError, ImportError) as exc:
            result[name] = {"skipped": f"{type(exc).__name__}: {exc} (NUDGE_DATA, extra demo)"}
            continue
        result[name] = compare(stream, PersonaPlan(count_min=options.count_min))
        if not options.json:
            print(name, json.dumps(result[name], indent=1))
    if options.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
