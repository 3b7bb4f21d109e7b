"""Regret of learned choices: decisions in contexts of a known truth, made and learned by the engine's own code.

Three variants. Which is best hangs on the device and the hour, as it may for wordings; none is best for all. A worker
picks with the newest snapshot, and a snapshot is taken every `SNAPSHOT` outcomes: so choices lag, as they do in life.
"""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace
from typing import Any, Final, Literal

from app.core.campaign import Campaign, Trigger, Variant
from app.core.choices import NOTHING_KNOWN, Choices
from app.core.choose import pick
from app.core.profile import Profile
from app.learning.arms import ArmLearner
from app.learning.served_choices import read_choices
from schemas.outcomes import Outcome

NAMES: Final = ("plain", "warm", "short")
SNAPSHOT: Final = 200
BASE_LOGIT: Final = -1.4
EFFECTS: Final = {
    "plain": {"always": 0.0, "ios": 0.0, "android": 0.0, "evening": 0.0},
    "warm": {"always": 0.1, "ios": 0.7, "android": -0.5, "evening": 0.3},
    "short": {"always": 0.0, "ios": -0.5, "android": 0.5, "evening": -0.3},
}
Choose = Literal["fixed", "thompson", "contextual"]


def truth(variant: str, device: str, hour_cos: float, engagement: float) -> float:
    """The probability of an open."""
    effect = EFFECTS[variant]
    logit = BASE_LOGIT + engagement + effect["always"] + effect.get(device, 0.0) + effect["evening"] * hour_cos
    return 1.0 / (1.0 + math.exp(-logit))


def _campaign(choose: Choose) -> Campaign:
    def render(_context: object) -> Any:
        return SimpleNamespace(title="", body="", deep_link="")

    variants = tuple(Variant(name, 1.0, render) for name in NAMES)
    return Campaign("hello", "promo", Trigger("event", event="Go"), variants, choose=choose, explore=0.05)


def regret(seed: int, choose: Choose, decisions: int) -> list[float]:
    """Opens lost against the oracle, summed, after each decision."""
    world = Random(f"world {seed}")
    campaign, learner = _campaign(choose), ArmLearner("open")
    choices: Choices = NOTHING_KNOWN
    lost, total = [], 0.0
    for n in range(decisions):
        device = world.choices(("ios", "android", "web"), (45, 45, 10))[0]
        angle = world.uniform(0, math.tau)
        engagement = world.gauss(0.0, 0.5)
        luck = world.random()
        features = {
            f"d={device}": 1.0,
            "hour_sin": math.sin(angle),
            "hour_cos": math.cos(angle),
            "open_logit": BASE_LOGIT + engagement,
        }
        rates = {name: truth(name, device, math.cos(angle), engagement) for name in NAMES}
        made = pick(
            Profile(), campaign, choices, user=f"u{seed}:{n}", decision_id=f"{seed}:{n}", features=features, now_ms=0
        )
        assert made is not None, "no variant sleeps"
        total += max(rates.values()) - rates[made.variant.name]
        lost.append(total)
        label = int(luck < rates[made.variant.name])
        learner.learn(_outcome(n, made.variant.name, made.propensity, label, features, choose))
        if choose != "fixed" and n % SNAPSHOT == SNAPSHOT - 1:
            choices = read_choices(learner.snapshot(0, 0, 0))
    return lost


def _outcome(n: int, variant: str, propensity: float, label: int, features: dict[str, float], chooser: str) -> Outcome:
    return Outcome(
        id=str(n),
        model="open",
        label=label,
        features=features,
        score=0.0,
        model_version=0,
        campaign="hello",
        decided_ms=0,
        matured_ms=0,
        variant=variant,
        propensity=propensity,
        chooser=chooser,
    )
