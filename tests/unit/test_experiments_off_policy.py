"""Off-policy estimates: right where the truth is known, honest where the log cannot know."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.core.choices import NOTHING_KNOWN, CampaignChoices, Choices
from app.experiments.logged import evaluate_campaign, read_outcomes, reward_of
from app.experiments.off_policy import Array, Log, effective_size, evaluate, weights_of
from app.experiments.sources import Recorded
from app.policy.load import load_policy_text
from schemas.outcomes import LATE_OPEN, LATE_OPT_OUT, Outcome, encode_outcome
from schemas.topics import OUTCOMES

RATES = np.array([0.1, 0.3, 0.2])


def logged(n: int, seed: int, behaviour: tuple[float, ...] = (0.6, 0.1, 0.3)) -> Log:
    """Decisions between three variants whose rates also depend on a context."""
    rng = np.random.default_rng(seed)
    contexts = rng.uniform(-1, 1, (n, 1))
    arms = rng.choice(3, n, p=behaviour)
    rewards = (rng.random(n) < RATES[arms] + 0.08 * contexts[:, 0]).astype(np.float64)
    return Log(arms, rewards, np.array(behaviour)[arms], contexts)


def always(n: int, shares: tuple[float, ...]) -> Array:
    return np.tile(np.array(shares, dtype=np.float64), (n, 1))


def test_the_three_estimates_by_hand() -> None:
    log = Log(np.array([0, 1]), np.array([1.0, 0.0]), np.array([0.5, 0.25]), np.empty((2, 0)))
    target = always(2, (0.25, 0.75))
    assert list(weights_of(log, target, weight_max=100)) == [0.5, 3.0]
    found = evaluate(log, target, resamples=20)
    assert found.logged.value == 0.5
    assert found.ips.value == pytest.approx(0.5 / 2)
    assert found.snips.value == pytest.approx(0.5 / 3.5)
    assert found.effective == pytest.approx(3.5**2 / 9.25)
    assert list(weights_of(log, target, weight_max=2)) == [0.5, 2.0]
    # Each half is predicted from the other, which holds one decision: its reward, and no variant's deviation from it.
    assert found.dr.value == pytest.approx(((0 + 0.5 * 1) + (1 + 3 * (0 - 1))) / 2)


def test_intervals_hold_the_truth_about_as_often_as_they_promise() -> None:
    target = (0.1, 0.8, 0.1)
    truth = float(np.array(target) @ RATES)
    held = {"ips": 0, "snips": 0, "dr": 0}
    for seed in range(60):
        found = evaluate(logged(1500, seed), always(1500, target), alpha=0.1, seed=seed, resamples=200)
        for name in held:
            estimate = getattr(found, name)
            held[name] += estimate.low <= truth <= estimate.high
    assert all(times >= 48 for times in held.values()), held


def test_a_good_model_narrows_the_doubly_robust_interval() -> None:
    rng = np.random.default_rng(1)
    contexts = rng.uniform(-1, 1, (2000, 1))
    arms = rng.integers(0, 2, 2000)
    rewards = 0.5 + 0.4 * contexts[:, 0] + 0.05 * arms  # nearly all of it is the context's
    log = Log(arms, rewards, np.full(2000, 0.5), contexts)
    found = evaluate(log, always(2000, (0.0, 1.0)), resamples=200)
    assert found.dr.high - found.dr.low < 0.5 * (found.ips.high - found.ips.low)
    assert found.dr.low < 0.55 < found.dr.high


def test_the_logging_policy_itself_is_worth_what_was_logged() -> None:
    log = logged(3000, 4)
    found = evaluate(log, always(3000, (0.6, 0.1, 0.3)))
    assert found.snips.value == pytest.approx(found.logged.value)
    assert (found.effective, found.clipped, found.warnings) == (3000, 0.0, [])


def test_a_log_that_hardly_says_anything_is_warned_of() -> None:
    log = logged(2000, 5, (0.98, 0.01, 0.01))
    found = evaluate(log, always(2000, (0.0, 1.0, 0.0)), weight_max=20)
    assert found.effective < 60
    assert found.clipped == pytest.approx(0.01, abs=0.01)
    assert [warning.split()[0] for warning in found.warnings] == ["effective", "only"]
    never = evaluate(log, always(2000, (0.0, 0.0, 0.0)))
    assert (never.snips.value, never.effective) == (0.0, 0.0)


@pytest.mark.parametrize("behaviour", [0.0, 1.5, float("nan")])
def test_an_impossible_propensity_is_refused(behaviour: float) -> None:
    with pytest.raises(ValueError, match="cannot support"):
        Log(np.array([0]), np.array([1.0]), np.array([behaviour]), np.empty((1, 0)))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="as many arms"):
        Log(np.array([0, 1]), np.array([1.0]), np.array([0.5]), np.empty((1, 0)))
    with pytest.raises(ValueError, match="probabilities of shape"):
        evaluate(logged(10, 1), always(9, (0.3, 0.3, 0.4)))
    assert effective_size(np.zeros(3)) == 0.0


# -- from outcomes and a policy

POLICY = """
version: '1'
name: b
campaigns:
  - name: hello
    category: promo
    trigger: {event: Go}
    CHOICE
    variants:
      - {name: plain, weight: 1, title: a, body: b}
      - {name: warm, weight: 3, title: a, body: b}
"""


def outcomes(number: int, **fields: Any) -> list[Outcome]:
    rng = random.Random(3)
    made = []
    for n in range(number):
        variant = rng.choice(["plain", "warm"])
        label = int(rng.random() < (0.1 if variant == "plain" else 0.3))
        one: dict[str, Any] = {
            "id": f"o{n}", "model": "open", "label": label, "features": {"hour_sin": 0.5}, "score": 0.2,
            "model_version": 0, "campaign": "hello", "decided_ms": 0, "matured_ms": 0, "variant": variant,
            "propensity": 0.5,
        }  # fmt: skip
        made.append(Outcome(**(one | fields)))
    return made


def judged(choice: str = "cost: 0", choices: Choices = NOTHING_KNOWN, **options: Any) -> Any:
    plan = load_policy_text(POLICY.replace("CHOICE", choice))
    settings: dict[str, Any] = {"reward": "open", "weight_max": 100.0, "alpha": 0.05} | options
    return evaluate_campaign("hello", outcomes(4000), plan, choices, **settings)


def test_other_weights_are_worth_what_their_mixture_of_rates_is() -> None:
    found = judged()
    assert found.warnings == []
    assert found.evaluation.snips.low < 0.25 * 0.1 + 0.75 * 0.3 < found.evaluation.snips.high
    assert found.evaluation.logged.value == pytest.approx(0.2, abs=0.02)


def test_a_learned_choice_is_evaluated_with_what_was_learned() -> None:
    known = Choices(5, {"hello": CampaignChoices(best={"plain": 0.0, "warm": 1.0})})
    found = judged("choose: thompson", known)
    assert found.evaluation.snips.value == pytest.approx(0.3, abs=0.03)
    assert any("optimistic" in warning for warning in found.warnings)
    stopped = judged(choices=Choices(5, {"hello": CampaignChoices(stopped=frozenset({"warm"}))}))
    assert stopped.evaluation.snips.value == pytest.approx(0.1, abs=0.03)


def test_what_logs_cannot_say_is_said() -> None:
    text = POLICY.replace("CHOICE", "cost: 0").replace("weight: 3,", "when: orders() > 1,")
    found = evaluate_campaign(
        "hello", outcomes(50), load_policy_text(text), NOTHING_KNOWN, reward="open", weight_max=9.0, alpha=0.1
    )
    assert found.evaluation is None
    assert "simulate" in found.warnings[0]
    other = evaluate_campaign(
        "gone", outcomes(50), load_policy_text(text), NOTHING_KNOWN, reward="open", weight_max=9.0, alpha=0.1
    )
    assert "no such campaign" in other.warnings[0]
    new = POLICY.replace("CHOICE", "cost: 0").replace("name: warm", "name: fresh")
    fresh = evaluate_campaign(
        "hello", outcomes(50), load_policy_text(new), NOTHING_KNOWN, reward="click", weight_max=9.0, alpha=0.1
    )
    assert "fresh was never shown" in fresh.warnings[0]


def test_outcomes_of_other_models_are_left_out_and_late_opt_outs_joined() -> None:
    (one,) = outcomes(1)
    other = msgspec.structs.replace(one, id="x", model="else")
    late = msgspec.structs.replace(one, label=LATE_OPT_OUT, opted_out=1)
    records = [Recorded(OUTCOMES, "open", encode_outcome(each), 0) for each in (late, one, other)]
    found, unreadable = read_outcomes([*records, Recorded(OUTCOMES, "open", b"{", 0)], "open")
    assert [(key, outcome.opted_out) for key, outcome in found.items()] == [("o0", 1)]
    assert unreadable == 1


def test_an_open_after_the_horizon_is_a_reward() -> None:
    one = msgspec.structs.replace(outcomes(1)[0], label=0)
    late = msgspec.structs.replace(one, label=LATE_OPEN)
    found, _ = read_outcomes([Recorded(OUTCOMES, "open", encode_outcome(each), 0) for each in (one, late)], "open")
    assert reward_of(found["o0"], "open") == 1.0


def test_rewards_that_one_weight_outweighs_are_warned_of() -> None:
    rewards = np.array([1.0] * 40 + [0.0] * 160)
    behaviour = np.full(200, 0.5)
    log = Log(np.zeros(200, dtype=np.int64), rewards, behaviour, np.zeros((200, 0)))
    target = np.tile([0.5, 0.5], (200, 1))
    assert evaluate(log, target).warnings == []
    behaviour[0] = 0.01
    assert "only 3 effective rewarded decisions" in evaluate(log, target).warnings[-1]


def test_late_clicks_and_gains_are_joined() -> None:
    (one,) = outcomes(1)
    clicked = msgspec.structs.replace(one, label=LATE_OPT_OUT, clicked=1)
    gain = msgspec.structs.replace(one, label=LATE_OPT_OUT, gain=-2.0, penalty=2.0)
    records = [Recorded(OUTCOMES, "open", encode_outcome(each), 0) for each in (one, clicked, gain)]
    found, _ = read_outcomes(records, "open")
    assert [(each.clicked, each.opted_out, each.gain) for each in found.values()] == [(1, 0, -2.0)]
    assert [reward_of(found["o0"], name) for name in ("click", "opt_out", "gain")] == [1.0, 0.0, -2.0]


def test_gains_are_evaluated_where_there_are_some() -> None:
    assert judged(reward="gain").evaluation is None


def test_the_command_prints_every_estimate(tmp_path: Path) -> None:
    policy, dump = tmp_path / "b.yaml", tmp_path / "outcomes.jsonl"
    policy.write_text(POLICY.replace("CHOICE", "cost: 0"))
    lines = [{"topic": OUTCOMES, "value": msgspec.Raw(encode_outcome(one))} for one in outcomes(800)]
    dump.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    shown = CliRunner().invoke(app, ["evaluate", "--policy", str(policy), "--from", str(dump)])
    assert shown.exit_code == 0, shown.output
    assert all(name in shown.output for name in ("hello", "ips", "snips", "dr", "800 decisions, worth"))
    found = CliRunner().invoke(app, ["evaluate", "--policy", str(policy), "--from", str(dump), "--json"])
    assert msgspec.json.decode(found.output)["evaluations"][0]["evaluation"]["decisions"] == 800
    wrong = CliRunner().invoke(app, ["evaluate", "--policy", str(policy), "--from", str(dump), "--reward", "money"])
    assert wrong.exit_code == 2
