"""What a worker serves: the model of its policy, its propensity models, and the version they are pinned to."""

from __future__ import annotations

import msgspec
from prometheus_client import CollectorRegistry

from app.core.plan import ModelPlan
from app.core.processor import Processor
from app.learning.arms import ArmLearner
from app.learning.book import NOWHERE, Pin, kept_name, pin_record
from app.learning.constant import ConstantModel
from app.learning.items import ItemLearner
from app.learning.learner import Learner
from app.learning.served_choices import SUFFIX
from app.learning.served_items import SUFFIX as ITEMS_SUFFIX
from app.learning.serving import prior_scorer, served_state
from app.metrics import Metrics
from app.model_feed import LearnerMetrics, ModelFeed
from app.settings import load_settings
from schemas.models import ModelSnapshot, encode_snapshot
from schemas.outcomes import NO_EXAMPLE, Outcome
from tests.support.plans import DAY, campaign_only, make_plan


def worker() -> tuple[Processor, Metrics, ModelFeed, bytes]:
    settings = load_settings(profile="dev", broker="127.0.0.1:1")
    plan = make_plan(models={"churn": ModelPlan(horizon_ms=DAY)})
    processor = Processor(plan, prior_scorer(), campaign_only)
    metrics = Metrics(CollectorRegistry())
    return processor, metrics, ModelFeed(processor, settings, metrics), settings.secret_bytes()


def snapshot(model: str, version: int, secret: bytes, partition: int = 0) -> bytes:
    found = ModelSnapshot(
        model=model,
        version=version,
        partition=partition,
        next_offset=0,
        created_ms=1,
        state=served_state("constant", ConstantModel().to_bytes()),
        metrics={},
    )
    return encode_snapshot(found, secret)


def test_each_model_of_the_policy_is_served_in_its_place() -> None:
    processor, _, feed, secret = worker()
    for model, version in (("open", 3), ("churn", 5), ("stranger", 7)):
        feed.apply(None, snapshot(model, version, secret), 0)
    assert processor.scorer.version == 3
    assert {name: scorer.version for name, scorer in processor.scorers.items()} == {"churn": 5}


def test_what_everybody_buys_reaches_the_processor() -> None:
    processor, _, feed, secret = worker()
    learner = ItemLearner("open")
    for user in range(3):
        features = {"bucket": float(user)}
        learner.learn(
            Outcome(
                id=f"b{user}", model="open", label=NO_EXAMPLE, features=features, score=0.0, model_version=0,
                campaign="", decided_ms=1, matured_ms=1, items=[["tea", "drinks", "Tea"]],
            )
        )  # fmt: skip
    feed.apply(None, encode_snapshot(learner.snapshot(1, 1, 0), secret), 0)
    assert [item.name for item in processor.items.popular["drinks"]] == ["Tea"]


def test_what_a_deposed_learner_writes_late_is_not_served() -> None:
    processor, metrics, feed, secret = worker()
    for key, suffix in (("open", ""), ("open.choices", SUFFIX), ("open.items", ITEMS_SUFFIX), ("churn", "")):
        learner = {"": Learner, SUFFIX: ArmLearner, ITEMS_SUFFIX: ItemLearner}[suffix](key.removesuffix(suffix))
        newer = msgspec.structs.replace(learner.snapshot(200, 1, 0), version=20)
        feed.apply(None, encode_snapshot(newer, secret), 0)
        feed.apply(None, encode_snapshot(learner.snapshot(150, 2, 0), secret), 1)
        assert metrics.registry.get_sample_value("nudge_model_version", {"model": key}) == 20, key
    assert (processor.scorer.version, processor.choices.version, processor.items.version) == (20, 20, 20)
    assert processor.scorers["churn"].version == 20


def test_a_pin_is_obeyed_at_once_and_shown() -> None:
    processor, metrics, feed, secret = worker()
    for model in ("open", "churn"):
        feed.apply(None, snapshot(kept_name(model, 0), 2, secret, NOWHERE), 0)
        feed.apply(None, snapshot(model, 3, secret), 0)
        feed.apply(None, encode_snapshot(pin_record(model, 2, Pin("operator"), 1), secret), 0)
        feed.apply(None, snapshot(model, 4, secret), 0)
    assert processor.scorer.version == processor.scorers["churn"].version == 2
    assert metrics.registry.get_sample_value("nudge_model_pinned_version", {"model": "open"}) == 2
    feed.apply(None, encode_snapshot(pin_record("open", 0, Pin("operator"), 1), secret), 0)
    assert processor.scorer.version == 4
    assert metrics.registry.get_sample_value("nudge_model_pinned_version", {"model": "open"}) == 0


def test_what_is_not_signed_is_counted_and_not_served() -> None:
    processor, metrics, feed, _ = worker()
    feed.apply(None, snapshot("open", 3, b"another secret"), 0)
    feed.apply(None, b"{", 0)
    assert processor.scorer.version == 0
    assert metrics.registry.get_sample_value("nudge_model_snapshots_rejected_total") == 2


def test_a_learners_figures_are_shown_by_model_and_campaign() -> None:
    _, metrics, _, _ = worker()
    learner = Learner("open", "constant")
    for number in range(50):
        learner.learn(
            Outcome(
                id=f"d{number}",
                model="open",
                label=number % 2,
                features={},
                score=0.5,
                model_version=0,
                campaign="cart",
                decided_ms=0,
                matured_ms=0,
            )
        )
    LearnerMetrics(metrics).learned(learner)
    value = metrics.registry.get_sample_value
    assert value("nudge_model_recent_auc", {"model": "open"}) == 0.5
    assert value("nudge_model_recall", {"model": "open"}) == 1.0
    assert value("nudge_model_campaign_calibration_ratio", {"model": "open", "campaign": "cart"}) == 1.0
    assert value("nudge_model_campaign_recent_brier", {"model": "open", "campaign": "cart"}) == 0.25
