"""What is learned about variants: as River's bandits would, bounded, restored bit for bit, and guarded."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from river import bandit, proba

from app.core.choices import CONTEXT, DIMENSIONS, context_of
from app.learning.arms import ARMS_MAX, LINEAR_MAX, VARIANTS_MAX, ArmLearner
from app.learning.contract import BadModel
from app.learning.served_choices import SUFFIX, Served, read_choices
from app.learning.thompson import probabilities_of_best, pseudo_counts
from schemas.models import ModelSnapshot, encode_snapshot
from schemas.outcomes import LATE_OPEN, LATE_OPT_OUT, NO_EXAMPLE, Outcome


def outcome(n: int, label: int, variant: str = "a", campaign: str = "hello", **fields: Any) -> Outcome:
    made: dict[str, Any] = {
        "id": f"o{n}", "model": "open", "label": label, "features": {}, "score": 0.2, "model_version": 0,
        "campaign": campaign, "decided_ms": 0, "matured_ms": 0, "variant": variant,
    }  # fmt: skip
    return Outcome(**(made | fields))


def snapshot(learner: ArmLearner) -> ModelSnapshot:
    return learner.snapshot(7, 1000, 0)


def stream(seed: int, number: int) -> list[Outcome]:
    rng = random.Random(seed)
    return [
        outcome(
            n,
            int(rng.random() < 0.3),
            rng.choice("abc"),
            rng.choice(["hello", "bye"]),
            chooser=rng.choice(["contextual", "thompson", ""]),
            features={"hour_sin": rng.uniform(-1, 1), "d=ios": float(rng.random() < 0.5)},
            opted_out=int(rng.random() < 0.02),
            opt_out_limit=0.01,
        )
        for n in range(number)
    ]


def test_the_probability_of_being_best_is_how_often_rivers_thompson_sampling_pulls() -> None:
    counts = [(12, 30), (18, 30), (4, 6)]
    policy = bandit.ThompsonSampling(reward_obj=proba.Beta(), seed=3)
    for arm, (opens, silences) in enumerate(counts):
        for reward in [1] * opens + [0] * silences:
            policy.update(arm, reward)
    pulls = [policy.pull([0, 1, 2]) for _ in range(6000)]
    assert [pulls.count(arm) / 6000 for arm in range(3)] == pytest.approx(probabilities_of_best(counts), abs=0.02)


def test_certainty_and_many_variants_are_no_trouble() -> None:
    assert probabilities_of_best([(9000, 1000), (1000, 9000)]) == pytest.approx([1.0, 0.0], abs=1e-9)
    assert sum(probabilities_of_best([(n, 40) for n in range(32)])) == pytest.approx(1.0)
    assert probabilities_of_best([(3, 4)]) == [1.0]
    assert probabilities_of_best([]) == []


def test_the_linear_model_is_rivers_linucb() -> None:
    theirs = bandit.LinUCBDisjoint(alpha=1.0, beta=1.0)
    learner = ArmLearner("open")
    rng = random.Random(1)
    for n in range(60):
        features = {"hour_sin": rng.uniform(-1, 1), "hour_cos": rng.uniform(-1, 1), "d=ios": 1.0}
        label = int(rng.random() < 0.4 + 0.3 * features["hour_sin"])
        learner.learn(outcome(n, label, features=features, chooser="contextual"))
        theirs.update("a", dict(enumerate(context_of(features))), label)
    arm = read_choices(snapshot(learner)).campaigns["hello"].linear["a"]
    x = context_of({"hour_sin": 0.5, "d=ios": 1.0})
    expected = theirs._bayes_lin_regs["a"].predict_one(dict(enumerate(x)), with_dist=True)
    assert arm.mean(x) == pytest.approx(expected.mu)
    assert (arm.upper(x) - arm.mean(x)) ** 2 * 4 == pytest.approx(expected.sigma**2 - 1.0), "without the noise's part"


def test_a_restored_learner_is_the_one_that_never_stopped() -> None:
    whole, first = ArmLearner("open"), ArmLearner("open")
    examples = stream(4, 300)
    for one in examples:
        whole.learn(one)
    for one in examples[:150]:
        first.learn(one)
    second = ArmLearner.restore(snapshot(first))
    for one in examples[100:]:  # fifty come again
        second.learn(one)
    assert msgspec.json.encode(snapshot(second)) == msgspec.json.encode(snapshot(whole))


def test_an_outcome_counts_once_and_a_late_opt_out_adds_to_it() -> None:
    learner = ArmLearner("open")
    assert learner.learn(outcome(1, 1))
    assert not learner.learn(outcome(1, 1))
    late = outcome(1, LATE_OPT_OUT, opted_out=1)
    assert learner.learn(late)
    assert not learner.learn(late)
    arm = learner.campaigns["hello"]["a"]
    assert (arm.sends, arm.opens, arm.opt_outs) == (1, 1, 1)
    assert not learner.learn(outcome(2, 5))
    assert not learner.learn(outcome(3, 1, variant=""))


def test_an_open_after_the_horizon_makes_of_a_silence_an_open() -> None:
    late, known = ArmLearner("open"), ArmLearner("open")
    of: dict[str, Any] = {"chooser": "contextual", "hour": 9, "features": {"hour_sin": 0.5, "d=ios": 1.0}}
    for n in range(20):
        late.learn(outcome(n, 0, **of))
        known.learn(outcome(n, int(n == 3), **of))
    assert late.learn(outcome(3, LATE_OPEN, **of))
    assert not late.learn(outcome(3, LATE_OPEN, **of)), "once"
    assert not late.learn(outcome(3, LATE_OPEN, "unknown", **of))
    assert (late.campaigns["hello"]["a"].opens, late.hour_opens[9]) == (1, 1)
    assert late.campaigns["hello"]["a"].linear == known.campaigns["hello"]["a"].linear


def test_a_variant_that_drives_people_away_is_stopped_and_stays_so_until_its_limit_changes() -> None:
    learner = ArmLearner("open")
    for n in range(60):
        learner.learn(outcome(n, 0, "bad", opted_out=int(n % 4 == 0), opt_out_limit=0.02, chooser="thompson"))
        learner.learn(outcome(1000 + n, 1, "good", opt_out_limit=0.02))
    assert learner.stopped() == {"hello": ["bad"]}
    served = read_choices(snapshot(learner)).campaigns["hello"]
    assert served.stopped == {"bad"}
    assert served.best == {"good": 1.0}
    for n in range(500):
        learner.learn(outcome(5000 + n, 0, "bad", opt_out_limit=0.02))
    assert ArmLearner.restore(snapshot(learner)).stopped() == {"hello": ["bad"]}
    learner.learn(outcome(9999, 0, "bad", opt_out_limit=0.2))
    assert learner.stopped() == {}


def test_campaigns_variants_and_models_are_bounded_and_the_snapshot_fits_a_message() -> None:
    learner = ArmLearner("open")
    for n in range(ARMS_MAX + 5):
        features = {name: n / 7 for name, _ in CONTEXT}
        learner.learn(outcome(n, n % 2, campaign=f"c{n}", chooser="contextual", features=features, opt_out_limit=0.01))
    assert set(learner.campaigns) == {f"c{n}" for n in range(5, ARMS_MAX + 5)}
    taken = snapshot(learner)
    served = read_choices(taken).campaigns
    assert {name for name, one in served.items() if one.linear} == {f"c{ARMS_MAX + 4 - n}" for n in range(LINEAR_MAX)}
    assert len(encode_snapshot(taken, b"secret")) < 900_000
    for n in range(VARIANTS_MAX + 5):
        learner.learn(outcome(10_000 + n, 0, f"v{n}", "c9"))
    assert len(learner.campaigns["c9"]) == VARIANTS_MAX
    assert sum(map(len, learner.campaigns.values())) <= ARMS_MAX


def test_only_campaigns_that_ask_for_it_are_told_which_variant_is_best() -> None:
    learner = ArmLearner("open")
    learner.learn(outcome(1, 1, campaign="asks", chooser="thompson"))
    learner.learn(outcome(2, 1, campaign="does_not"))
    served = read_choices(snapshot(learner)).campaigns
    assert (served["asks"].best, served["does_not"].best) == ({"a": 1.0}, {})


def test_the_snapshot_has_a_key_of_its_own() -> None:
    learner = ArmLearner("open")
    learner.learn(outcome(1, 1))
    taken = snapshot(learner)
    assert (taken.model, taken.version, taken.next_offset) == ("open" + SUFFIX, 1, 7)


@pytest.mark.parametrize("state", [b"no json", b'{"version":2,"served":{}}', b'{"version":1}'])
def test_a_state_that_is_not_ours_is_refused(state: bytes) -> None:
    taken = msgspec.structs.replace(snapshot(ArmLearner("open")), state=state)
    with pytest.raises(BadModel):
        read_choices(taken)


def test_a_context_of_another_size_is_refused() -> None:
    arms = {"hello": {"a": {"linear": {"lower": [[1.0]], "reward": [0.0]}}}}
    state = msgspec.json.encode({"version": 1, "served": {"hello": Served({}, [])}, "campaigns": arms})
    with pytest.raises(BadModel, match="another size"):
        read_choices(msgspec.structs.replace(snapshot(ArmLearner("open")), state=state))
    assert DIMENSIONS > 1


def rewarded(n: int, gain: float, variant: str = "a", **fields: Any) -> Outcome:
    return outcome(n, NO_EXAMPLE, variant, gain=gain, **({"reward": "click:1", "chooser": "thompson"} | fields))


def taught(rates: dict[str, tuple[float, float]], **fields: Any) -> ArmLearner:
    """Each variant's opens and clicks by their rates, 400 sends each."""
    learner = ArmLearner("open")
    for at, (variant, (opens, clicks)) in enumerate(rates.items()):
        for n in range(at * 1000, at * 1000 + 400):
            label = int(n % 1000 < 400 * opens)
            learner.learn(outcome(n, label, variant, reward="click:1", chooser="thompson", **fields))
            learner.learn(rewarded(n, float(n % 1000 < 400 * clicks), variant, **fields))
    return learner


def test_a_choice_that_learns_from_clicks_prefers_another_variant_than_one_that_learns_from_opens() -> None:
    rates = {"bait": (0.5, 0.05), "plain": (0.2, 0.15)}
    learner = taught(rates)
    arm = learner.campaigns["hello"]["bait"]
    assert (arm.sends, arm.opens, arm.rewards, arm.gain) == (400, 200, 400, 20.0)
    assert read_choices(snapshot(learner)).campaigns["hello"].best["plain"] > 0.99
    for n in range(5000, 5002):  # the policy goes back to opens, all of which were counted
        learner.learn(outcome(n, 0, "bait" if n % 2 else "plain", chooser="thompson"))
    assert read_choices(snapshot(learner)).campaigns["hello"].best["bait"] > 0.99


def test_a_reward_counts_once_however_often_it_comes() -> None:
    learner = ArmLearner("open")
    assert learner.learn(rewarded(1, 1.0))
    assert not learner.learn(rewarded(1, 1.0))
    assert learner.learn(outcome(1, 1, reward="click:1")), "its example is another record"
    assert not learner.learn(rewarded(2, 1.5))
    assert not learner.learn(rewarded(2, -0.5, penalty=0.4))
    again = ArmLearner.restore(snapshot(learner))
    assert not again.learn(rewarded(1, 1.0))
    assert again.campaigns["hello"]["a"].rewards == 1
    assert msgspec.json.encode(snapshot(again)) == msgspec.json.encode(snapshot(learner))


def test_what_was_learned_from_another_reward_is_forgotten() -> None:
    learner = ArmLearner("open")
    x = {"hour_sin": 1.0}
    for n in range(50):
        learner.learn(rewarded(n, 1.0, chooser="contextual", features=x))
    assert read_choices(snapshot(learner)).campaigns["hello"].linear["a"].mean(context_of(x)) > 0.9
    learner.learn(rewarded(99, 0.0, chooser="contextual", features=x, reward="conversion:2"))
    assert read_choices(snapshot(learner)).campaigns["hello"].linear["a"].mean(context_of(x)) == 0.0
    assert learner.campaigns["hello"]["a"].rewards == 1


def test_a_contextual_choice_learns_from_the_reward_and_not_from_the_open() -> None:
    learner = ArmLearner("open")
    for n in range(50):
        learner.learn(outcome(n, 1, chooser="contextual", reward="click:1"))
        learner.learn(rewarded(n, 0.0, chooser="contextual"))
    arm = read_choices(snapshot(learner)).campaigns["hello"].linear["a"]
    assert arm.mean(context_of({})) == 0.0
    assert learner.campaigns["hello"]["a"].opens == 50


def test_a_penalty_costs_a_variant_that_drives_people_away_its_place() -> None:
    learner = ArmLearner("open")
    rng = random.Random(5)
    for n in range(3000):
        variant, rate, leave = (("loud", 0.12, 0.02), ("calm", 0.08, 0.0))[n % 2]
        gain = float(rng.random() < rate) - 5.0 * (rng.random() < leave)
        learner.learn(rewarded(n, gain, variant, penalty=5.0))
    assert read_choices(snapshot(learner)).campaigns["hello"].best["calm"] > 0.9


def test_pseudo_counts_have_the_mean_and_the_spread_of_what_was_observed() -> None:
    assert pseudo_counts(50, 12.0, 12.0, 0.0) == pytest.approx((12.0, 38.0))
    a, b = (number + 1 for number in pseudo_counts(2000, 100.0, 10.0, 0.0))
    assert a / (a + b) == pytest.approx(0.05, abs=0.001)
    spread = (10.0 / 2000 - 0.05**2) / 2000
    assert a * b / ((a + b) ** 2 * (a + b + 1)) == pytest.approx(spread, rel=0.25)
    a, b = (number + 1 for number in pseudo_counts(0, 0.0, 0.0, 4.0))
    assert a / (a + b) == pytest.approx(0.9), "half way between nothing and the most, on a scale from -4 to 1"


def test_a_damaged_reward_or_opt_out_does_no_harm() -> None:
    learner = ArmLearner("open")
    learner.learn(outcome(1, 0, opted_out=50, chooser="thompson", reward="click"))
    assert not learner.learn(outcome(1, NO_EXAMPLE, gain=0.0, penalty=1e300, chooser="thompson", reward="click"))
    assert learner.campaigns["hello"]["a"].opt_outs == 1
    assert read_choices(snapshot(learner)).campaigns["hello"].best == {"a": 1.0}
