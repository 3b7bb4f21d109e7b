"""What learning and scoring cost: examples a second through the whole learner, and microseconds a score.

    python -m benchmarks.learning --json

Two peers run beside it, both bare River, predicting and learning the same examples with the same optimiser:

- the same pipeline (`ratio_vs_river`): numbers through StandardScaler, indicators past it, logistic regression;
- the regression alone on raw features (`ratio_vs_regression`), which is cheaper than what is needed.

Neither calibrates, keeps metrics, looks for drift or skips duplicates, as the learner does. A ratio is the learner's
speed over the peer's.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from typing import Any, Final

from river import compose, linear_model, optim, preprocessing

from app.core.campaign import Campaign, Trigger
from app.core.features import open_features
from app.core.plan import Plan, event_id
from app.core.profile import Profile
from app.core.row_parts import SendMemory
from app.learning.learner import Learner
from app.learning.open_state import Config
from app.learning.serving import read_scorer
from benchmarks.common import machine
from schemas.events import APPLICATION_OPENED, NOTIFICATION_OPENED
from schemas.outcomes import Outcome

NOW_MS: Final = 1_772_442_000_000
HOUR_MS: Final = 3_600_000
CAMPAIGNS: Final = ("cart", "dormant", "price_drop", "welcome")


def profiles(count: int, seed: int) -> list[Profile]:
    """Users with some history each."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        sent = rng.randrange(60)
        opened = sum(rng.random() < 0.2 for _ in range(sent))
        rows.append(
            Profile(
                first_ms=NOW_MS - rng.randrange(1, 9_000) * HOUR_MS,
                timezone=rng.choice(("America/New_York", "Europe/Paris", "Asia/Tokyo")),
                device=rng.choice(("ios", "android")),
                last={
                    event_id(name): NOW_MS - rng.randrange(1, 900) * HOUR_MS
                    for name in (NOTIFICATION_OPENED, APPLICATION_OPENED)
                },
                sent=sent,
                opened=opened,
                labels=(1 << min(sent, 60)) | rng.getrandbits(min(sent, 60)) if sent else 1,
                orders=rng.randrange(20),
                revenue_milli=rng.randrange(2_000_000),
                hours={rng.randrange(168): 1 for _ in range(opened)},
                sends=[SendMemory(NOW_MS - h * HOUR_MS, 1, 1) for h in (200, 90, 10)],
            )
        )
    return rows


def outcomes(rows: list[Profile], count: int, seed: int) -> list[Outcome]:
    """Examples whose label follows the user's rate and the campaign."""
    rng = random.Random(seed)
    plan = Plan(version="benchmark")
    campaigns = [Campaign(name=n, category="offers", trigger=Trigger("event"), variants=()) for n in CAMPAIGNS]
    result = []
    for number in range(count):
        row, at = rng.choice(rows), rng.randrange(len(campaigns))
        chance = 0.05 + 0.6 * row.opened / (row.sent + 5) + 0.05 * at
        result.append(
            Outcome(
                id=f"decision-{number}",
                model="open",
                label=int(rng.random() < chance),
                features=open_features(row, campaigns[at], NOW_MS, plan),
                score=0.15,
                model_version=0,
                campaign=campaigns[at].name,
                decided_ms=NOW_MS,
                matured_ms=NOW_MS,
            )
        )
    return result


def _regression() -> Any:
    return linear_model.LogisticRegression(optim.AdaGrad(Config().rate))


def _pipeline() -> Any:
    numbers = compose.FuncTransformer(lambda x: {name: value for name, value in x.items() if "=" not in name})
    indicators = compose.FuncTransformer(lambda x: {name: value for name, value in x.items() if "=" in name})
    return ((numbers | preprocessing.StandardScaler()) + indicators) | _regression()


def _river_seconds(model: Any, data: list[Outcome]) -> float:
    start = time.process_time()
    for outcome in data:
        model.predict_proba_one(outcome.features)
        model.learn_one(outcome.features, bool(outcome.label))
    return time.process_time() - start


def _learner_seconds(data: list[Outcome], kind: str) -> tuple[float, Learner]:
    learner = Learner("open", kind)
    start = time.process_time()
    for outcome in data:
        learner.learn(outcome)
    return time.process_time() - start, learner


def _ratio(peer_s: list[float], own_s: list[float]) -> float:
    return round(statistics.median(peer / own for peer, own in zip(peer_s, own_s, strict=True)), 2)


def _us_each(calls: int, seconds: float) -> float:
    return round(seconds / calls * 1e6, 2)


def measure(count: int, rounds: int, seed: int, kind: str = "open-mix") -> dict[str, object]:
    """Medians over `rounds`; learner and peer take turns, so that a busy machine slows both."""
    rows = profiles(2_000, seed)
    data = outcomes(rows, count, seed)
    own_s, pipeline_s, regression_s = [], [], []
    scores, features = [], []
    campaign = Campaign(name="cart", category="offers", trigger=Trigger("event"), variants=())
    plan = Plan(version="benchmark")
    for _ in range(rounds):
        pipeline_s.append(_river_seconds(_pipeline(), data))
        regression_s.append(_river_seconds(_regression(), data))
        own, learner = _learner_seconds(data, kind)
        own_s.append(own)
        snapshot = learner.snapshot(count, NOW_MS, 0)
        probability = read_scorer(snapshot).open_probability
        start = time.process_time()
        for outcome in data:
            probability(outcome.features)
        scores.append(time.process_time() - start)
        start = time.process_time()
        for row in rows:
            open_features(row, campaign, NOW_MS, plan)
        features.append(time.process_time() - start)
    return {
        "examples": count,
        "features_per_example": round(statistics.fmean(len(outcome.features) for outcome in data), 1),
        "examples_per_second": round(count / statistics.median(own_s)),
        "river_examples_per_second": round(count / statistics.median(pipeline_s)),
        "regression_examples_per_second": round(count / statistics.median(regression_s)),
        "ratio_vs_river": _ratio(pipeline_s, own_s),
        "ratio_vs_regression": _ratio(regression_s, own_s),
        "score_us": _us_each(count, statistics.median(scores)),
        "features_us": _us_each(len(rows), statistics.median(features)),
        "snapshot_bytes": len(snapshot.state),
        "seed": seed,
        "kind": kind,
        "machine": machine(),
    }


def main() -> None:
    """Print the figures; the last line is JSON with --json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--kind", default="open-mix", help="another model kind")
    arguments.add_argument("--json", action="store_true", help="one JSON object as the last line")
    chosen = arguments.parse_args()
    result = measure(chosen.examples, chosen.rounds, chosen.seed, chosen.kind)
    for name, value in result.items():
        print(f"{name:32} {value}")
    if chosen.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
