"""The learner: single writer of a model, restorable bit for bit."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest

from app.core.choices import context_of
from app.core.plan import ModelPlan
from app.learning.arms import ArmLearner
from app.learning.book import KEPT_MAX
from app.learning.contract import BadModel
from app.learning.drift import LossDrift
from app.learning.kinds import KINDS
from app.learning.learner import RECENT_MAX, Learner
from app.learning.progressive import BLOCK
from app.learning.served_choices import read_choices
from app.learning.serving import prior_scorer, read_scorer
from schemas.models import BadSignature, ModelSnapshot, decode_snapshot, encode_snapshot
from schemas.outcomes import Outcome

SECRET = b"test secret"


def outcomes(count: int, start: int = 0, *, base: float = -2.0) -> list[Outcome]:
    rng = random.Random(start)
    result = []
    for number in range(start, start + count):
        a = rng.gauss(0, 1)
        p = 1 / (1 + math.exp(-(base + 2 * a)))
        result.append(
            Outcome(
                id=f"decision-{number}",
                model="open",
                label=int(rng.random() < p),
                features={"a": a, "c=cart": 1.0},
                score=0.15,
                model_version=0,
                campaign="cart",
                decided_ms=number,
                matured_ms=number + 1,
            )
        )
    return result


def taught(data: list[Outcome], kind: str = "open-lr") -> Learner:
    learner = Learner("open", kind)
    for outcome in data:
        learner.learn(outcome)
    return learner


def travelled(snapshot: ModelSnapshot) -> ModelSnapshot:
    return decode_snapshot(encode_snapshot(snapshot, SECRET), SECRET)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_learner_goes_on_bit_for_bit(kind: str) -> None:
    data = outcomes(1_500)
    stopped = Learner.restore(travelled(taught(data[:700], kind).snapshot(700, 1, 0)))
    for outcome in data[700:]:
        stopped.learn(outcome)
    assert stopped.snapshot(1_500, 2, 0) == taught(data, kind).snapshot(1_500, 2, 0)


def test_a_snapshot_with_another_signature_is_refused() -> None:
    raw = encode_snapshot(taught(outcomes(10)).snapshot(10, 1, 0), SECRET)
    with pytest.raises(BadSignature):
        decode_snapshot(raw, b"another secret")
    with pytest.raises(BadSignature):
        decode_snapshot(raw.replace(b'"version":10', b'"version":11'), SECRET)


@pytest.mark.parametrize(
    ("kind", "challenger"), [("open-mix", "open-trees"), ("open-lr", "open-mix"), ("open-mix", "")]
)
def test_a_snapshot_fits_a_message_whatever_features_came(kind: str, challenger: str) -> None:
    learner = Learner("open", kind)
    learner.configure(ModelPlan(challenger=challenger))
    data = outcomes(60)
    for one in data:
        learner.learn(one)
    for number, one in enumerate(outcomes(6, start=1000)):
        flood = {f"t.city={number}.{n}": 1.0 for n in range(600)} | {f"number{number}.{n}": n / 7 for n in range(100)}
        learner.learn(msgspec.structs.replace(one, features=one.features | flood))
    snapshot = learner.snapshot(7, 1, 0)
    assert len(encode_snapshot(snapshot, SECRET)) < 1_000_000
    assert {"a", "c=cart"} <= set(learner.model.explain_one(data[0].features)), "what has most evidence stays"
    assert Learner.restore(travelled(snapshot)).snapshot(7, 1, 0) == snapshot


def test_a_snapshot_says_where_it_stands() -> None:
    snapshot = taught(outcomes(25)).snapshot(1_234, 99, 3)
    assert (snapshot.model, snapshot.version, snapshot.next_offset, snapshot.created_ms, snapshot.partition) == (
        "open",
        25,
        1_234,
        99,
        3,
    )
    assert snapshot.metrics["examples"] == 25


def test_a_worker_scores_as_the_learner_would() -> None:
    learner = taught(outcomes(500))
    scorer = read_scorer(travelled(learner.snapshot(500, 1, 0)))
    assert scorer.version == learner.version
    for outcome in outcomes(100, start=9_000):
        own = learner.model.predict_proba_one(outcome.features)
        assert scorer.open_probability(outcome.features) == pytest.approx(own, rel=1e-9)


def test_before_any_snapshot_a_worker_serves_the_prior_as_version_0() -> None:
    scorer = prior_scorer()
    assert scorer.version == 0
    assert scorer.open_probability({"c=cart": 1.0}) == pytest.approx(0.15)


def test_an_outcome_counts_once_also_after_a_restore() -> None:
    data = outcomes(50)
    learner = taught(data)
    model = learner.model.to_bytes()
    assert not learner.learn(data[3])
    learner = Learner.restore(travelled(learner.snapshot(50, 1, 0)))
    assert not learner.learn(data[3])
    assert learner.model.to_bytes() == model
    assert learner.metrics()["duplicates"] == 2
    assert learner.metrics()["examples"] == 50


def test_the_memory_of_outcome_ids_is_bounded() -> None:
    data = outcomes(RECENT_MAX + 10)
    learner = taught(data, "constant")
    assert learner.learn(data[0])
    assert not learner.learn(data[-1])
    state = json.loads(learner.snapshot(0, 1, 0).state)
    assert len(state["recent"]) <= RECENT_MAX * 8 * 4 / 3 + 4


@pytest.mark.parametrize("change", [{"model": "another"}, {"label": 2}, {"label": -1}])
def test_what_is_no_example_of_this_model_is_refused_and_counted(change: dict[str, object]) -> None:
    learner = Learner("open")
    assert not learner.learn(msgspec.structs.replace(outcomes(1)[0], **change))
    assert learner.version == 0
    assert learner.metrics()["refused"] == 1


def test_the_served_metrics_judge_the_score_of_the_decision() -> None:
    metrics = taught(outcomes(2_000)).metrics()
    assert metrics["auc"] == 0.5  # the logged score was the constant prior
    assert metrics["learner_auc"] > 0.8
    assert metrics["learner_log_loss"] < metrics["log_loss_constant"]


@pytest.mark.parametrize(
    "state", [b"", b"{}", b"\x80\x04K\x01.", b'{"kind":"pickle","model":"","version":1}', b'{"version":2}']
)
def test_a_state_of_another_make_is_refused(state: bytes) -> None:
    snapshot = msgspec.structs.replace(taught(outcomes(5)).snapshot(5, 1, 0), state=state)
    with pytest.raises(BadModel):
        Learner.restore(snapshot)
    with pytest.raises(BadModel):
        read_scorer(snapshot)


def test_a_rise_of_the_loss_is_counted_as_drift_and_a_steady_loss_is_not() -> None:
    learner = taught(outcomes(4_000, base=-4.0))
    assert learner.metrics()["drift_detections"] == 0
    for outcome in outcomes(4_000, start=4_000, base=-4.0):
        learner.learn(msgspec.structs.replace(outcome, label=1 - outcome.label))
    assert learner.metrics()["drift_detections"] >= 1


def test_a_restored_drift_detector_fires_at_the_same_example() -> None:
    losses = [0.3] * 600 + [1.2] * 200
    straight, stopped = LossDrift(), LossDrift()
    fired = []
    for at, loss in enumerate(losses):
        if at == 620:
            stopped = LossDrift(stopped.state)
        fired.append((straight.update(loss), stopped.update(loss)))
    assert all(a == b for a, b in fired)
    assert any(a for a, _ in fired)


def hills(count: int, seed: int = 0, start: int = 0) -> list[Outcome]:
    """Opened in the middle of `a` only, which no slope can say."""
    rng = random.Random(seed)
    result = []
    for outcome in outcomes(count, start):
        a = rng.gauss(0, 1)
        label = int(rng.random() < (0.8 if abs(a) < 0.7 else 0.1))
        result.append(msgspec.structs.replace(outcome, features={"a": a}, label=label))
    return result


CHALLENGED = ModelPlan(kind="open-lr", challenger="open-mix")


def test_a_challenger_that_is_surely_better_is_promoted_and_the_champion_challenges_it() -> None:
    learner = Learner("open", "open-lr")
    learner.configure(CHALLENGED)
    for outcome in hills(4_000):
        learner.learn(outcome)
        learner.configure(CHALLENGED)
    assert (learner.kind, learner.challenger_kind, learner.promotions) == ("open-mix", "open-lr", 1)
    assert learner.version == 4_000
    assert read_scorer(learner.snapshot(1, 1, 0)).open_probability({"a": 0.0}) > 0.6


def test_a_challenger_that_is_no_better_is_not_promoted() -> None:
    learner = Learner("open", "open-lr")
    learner.configure(ModelPlan(kind="open-lr", challenger="constant"))
    for outcome in outcomes(4_000):
        learner.learn(outcome)
    assert learner.promotions == 0
    assert learner.metrics()["challenger_gain"] < 0


def test_champion_and_challenger_survive_a_restart_bit_for_bit() -> None:
    data = hills(1_500)

    def challenged() -> Learner:
        learner = Learner("open", "open-lr")
        learner.configure(CHALLENGED)
        return learner

    straight, first = challenged(), challenged()
    for outcome in data:
        straight.learn(outcome)
    for outcome in data[:700]:
        first.learn(outcome)
    first.keep(5)
    straight._kept = list(first._kept)
    second = Learner.restore(travelled(first.snapshot(700, 1, 0)))
    second.configure(CHALLENGED)
    for outcome in data[700:]:
        second.learn(outcome)
    assert second.snapshot(9, 9, 0) == straight.snapshot(9, 9, 0)


def turned_round(count: int, start: int) -> list[Outcome]:
    return [msgspec.structs.replace(outcome, label=1 - outcome.label) for outcome in outcomes(count, start, base=-4.0)]


@pytest.mark.parametrize("kind", ["open-lr", "open-ftrl", "constant"])
def test_after_a_drift_a_model_that_learns_faster_is_right_sooner(kind: str) -> None:
    losses = {}
    for action in ("alarm", "learn_faster"):
        learner = Learner("open", kind)
        learner.configure(ModelPlan(kind=kind, on_drift=action))
        for outcome in outcomes(4_000, base=-4.0) + turned_round(2_000, 10_000):
            learner.learn(outcome)
        assert "page_hinkley" in learner.take_alarms()
        late = turned_round(500, 20_000)
        scores = [(learner.model.predict_proba_one(outcome.features), outcome.label) for outcome in late]
        losses[action] = -sum(math.log(p if y else 1 - p) for p, y in scores)
    assert losses["learn_faster"] < losses["alarm"]


def test_after_a_drift_the_mixture_takes_larger_steps_and_is_as_right_as_without() -> None:
    plain, faster = taught(outcomes(2_000), "open-mix"), taught(outcomes(2_000), "open-mix")
    faster.model.learn_faster()
    x = {"a": 1.0, "c=cart": 1.0}
    before = plain.model.predict_proba_one(x)
    assert faster.model.predict_proba_one(x) == before
    for learner in (plain, faster):
        learner.model.learn_one(x, 0)
    assert faster.model.predict_proba_one(x) < plain.model.predict_proba_one(x) < before
    for learner in (plain, faster):
        for outcome in outcomes(2_000, 70_000):
            learner.learn(outcome)
    losses = [learner.metrics()["learner_log_loss"] for learner in (plain, faster)]
    assert losses[1] == pytest.approx(losses[0], abs=0.01)


def test_one_campaign_going_wrong_raises_its_own_alarm() -> None:
    learner = Learner("open", "constant")
    rng = random.Random(3)
    for number, outcome in enumerate(outcomes(12_000)):
        campaign = "small" if number % 20 == 0 else "large"
        label = int(rng.random() < (0.6 if campaign == "small" and number > 6_000 else 0.1))
        learner.learn(msgspec.structs.replace(outcome, campaign=campaign, label=label))
    assert learner.take_alarms()[0] == "campaign"  # before that of all, which sees a twentieth of it
    assert learner.metrics()["drift_campaign_detections"] == 1
    assert learner.progressive.campaigns["small"].examples == 600
    assert learner.campaign_drift.alarms == {"small": 1}


@pytest.mark.parametrize(("action", "moves"), [("alarm", False), ("learn_faster", True), ("fall_back", True)])
def test_one_campaigns_alarm_is_answered_in_its_own_weight(action: str, moves: bool) -> None:
    plain, drifted = taught(outcomes(1_000), "open-mix"), taught(outcomes(1_000), "open-mix")
    drifted.configure(ModelPlan(on_drift=action))
    drifted._drifted("campaign", "cart")
    before = plain.model.explain_one({"c=cart": 1.0})["c=cart"]
    for learner in (plain, drifted):
        for _ in range(5):
            learner.model.learn_one({"c=cart": 1.0}, 0)
    steps = [learner.model.explain_one({"c=cart": 1.0})["c=cart"] - before for learner in (plain, drifted)]
    assert (steps[1] < 2 * steps[0] < 0.0) == moves


def test_versions_are_kept_in_calm_times_and_bounded() -> None:
    learner = Learner("open", "constant")
    slots = []
    for number, outcome in enumerate(outcomes(6_000)):
        learner.learn(outcome)
        if number % 100 == 0 and (kept := learner.keep(number)) is not None:
            slots.append(kept.model)
            assert read_scorer(kept).version == kept.version
    assert len(set(slots)) == KEPT_MAX < len(slots)
    assert learner.fallback_version() <= learner.version - BLOCK
    learner._drifted("page_hinkley")
    for outcome in outcomes(BLOCK - 1, 100_000):
        learner.learn(outcome)
        assert learner.keep(1) is None


def test_a_model_has_recovered_when_it_beats_what_is_served_over_a_block() -> None:
    learner = Learner("open")
    learner._drifted("page_hinkley")
    for outcome in outcomes(2 * BLOCK - 1):
        learner.learn(outcome)
        assert not learner.recovered()
    learner.learn(outcomes(1, 50_000)[0])
    assert learner.recovered()


def damaged(number: int) -> Outcome:
    """Nothing in it is in its range."""
    rng = random.Random(number)
    values = (0.0, 1.0, 0.2, -0.3, 2.0, -1e300, 1e300, 1e12, 5e-324)
    return Outcome(
        id=str(rng.randrange(400)),
        model="open",
        label=rng.choice((0, 1, 0, 1, -1, -2, 7)),
        features={rng.choice(("a", "b", "c=x", "=", "", "bias")): rng.choice(values) for _ in range(rng.randrange(5))},
        score=rng.choice(values),
        model_version=-1,
        campaign=rng.choice(("", "a", "b" * 1000)),
        decided_ms=-1,
        matured_ms=10**15,
        variant=rng.choice(("", "v", "w")),
        weight=rng.choice(values),
        opted_out=rng.choice((0, 1, -3, 50)),
        chooser=rng.choice(("", "thompson", "contextual", "?")),
        opt_out_limit=rng.choice(values),
        hour=rng.choice((-1, 5, 168, 10**9)),
        reward=rng.choice(("", "click")),
        gain=rng.choice((None, *values)),
        penalty=rng.choice(values),
    )


@pytest.mark.filterwarnings("ignore:overflow")
def test_damaged_outcomes_leave_learners_that_can_be_published_and_served() -> None:
    learner, arms = Learner("open", "open-mix"), ArmLearner("open")
    learner.configure(ModelPlan(challenger="open-lr", on_drift="learn_faster"))
    for number in range(1500):
        learner.learn(damaged(number))
        arms.learn(damaged(number))
    snapshot = learner.snapshot(1, 1, 0)
    assert Learner.restore(travelled(snapshot)).snapshot(1, 1, 0) == snapshot
    assert 0.0 < read_scorer(snapshot).open_probability({"a": 1.0, "c=x": 1.0}) < 1.0
    served = read_choices(travelled(arms.snapshot(1, 1, 0))).campaigns
    assert served
    for campaign in served.values():
        assert math.fsum(campaign.best.values()) == pytest.approx(1.0) or not campaign.best
        assert all(math.isfinite(arm.upper(context_of({"hour_sin": 0.5}))) for arm in campaign.linear.values())
