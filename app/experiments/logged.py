"""Matured outcomes as the logs of an evaluation, and what a policy would have done in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from app.core.campaign import Campaign
from app.core.choices import Choices, context_of, of_campaign
from app.core.choose import propensities
from app.core.plan import Plan
from app.core.profile import Profile
from app.experiments.off_policy import Array, Evaluation, Log, evaluate
from app.experiments.sources import Recorded
from schemas.outcomes import LATE_OPEN, LATE_OPT_OUT, Outcome, decode_outcome

REWARDS = ("open", "click", "opt_out", "gain")
"""`gain` is what the campaign's own choice learns from, where the policy says `reward`."""


class CampaignEvaluation(msgspec.Struct):
    """A campaign's evaluation, or why there is none (`evaluation` None)."""

    campaign: str
    evaluation: Evaluation | None
    warnings: list[str]


def read_outcomes(records: Iterable[Recorded], model: str) -> tuple[dict[str, Outcome], int]:
    """A model's outcomes by decision id, what came later joined to them, and how many were unreadable."""
    found: dict[str, Outcome] = {}
    later: list[Outcome] = []
    unreadable = 0
    for record in records:
        try:
            outcome = decode_outcome(record.value)
        except msgspec.MsgspecError:
            unreadable += 1
            continue
        if outcome.model != model:
            continue
        if outcome.label in (LATE_OPT_OUT, LATE_OPEN):
            later.append(outcome)
        elif outcome.variant and outcome.label in (0, 1):
            found[outcome.id] = outcome
    for more in later:
        if more.id in found:
            found[more.id] = _joined(found[more.id], more)
    return found, unreadable


def _joined(outcome: Outcome, more: Outcome) -> Outcome:
    if more.label == LATE_OPEN:
        return msgspec.structs.replace(outcome, label=1)
    if more.gain is not None:
        return msgspec.structs.replace(outcome, gain=more.gain, penalty=more.penalty)
    opted_out, clicked = max(outcome.opted_out, more.opted_out), max(outcome.clicked, more.clicked)
    return msgspec.structs.replace(outcome, opted_out=opted_out, clicked=clicked)


def reward_of(outcome: Outcome, reward: str) -> float:
    """1 when it happened, else 0, or the gain; `reward` is one of `REWARDS`."""
    if reward == "open":
        return float(outcome.label)
    if reward == "gain":
        return outcome.gain or 0.0
    return float(outcome.clicked if reward == "click" else outcome.opted_out)


def evaluate_campaign(
    name: str,
    outcomes: Sequence[Outcome],
    plan: Plan,
    choices: Choices,
    *,
    reward: str,
    weight_max: float,
    alpha: float,
) -> CampaignEvaluation:
    """What `plan` would have earned a decision with the logged decisions of one campaign."""
    campaign = next((one for one in plan.campaigns if one.name == name), None)
    if campaign is None:
        return CampaignEvaluation(name, None, ["the policy has no such campaign: it would have sent nothing"])
    conditional = [variant.name for variant in campaign.variants if variant.eligible is not None]
    if conditional:
        why = f"who may get {', '.join(conditional)} cannot be known from logs: simulate the policy instead"
        return CampaignEvaluation(name, None, [why])
    if reward == "gain" and not (outcomes := [outcome for outcome in outcomes if outcome.gain is not None]):
        return CampaignEvaluation(name, None, ["no gain was logged: the campaign's reward is the open"])
    variants = sorted({outcome.variant for outcome in outcomes} | {variant.name for variant in campaign.variants})
    log = Log(
        arms=np.array([variants.index(outcome.variant) for outcome in outcomes], dtype=np.int64),
        rewards=np.array([reward_of(outcome, reward) for outcome in outcomes], dtype=np.float64),
        behaviour=np.array([outcome.propensity for outcome in outcomes], dtype=np.float64),
        contexts=np.array([context_of(outcome.features)[1:] for outcome in outcomes], dtype=np.float64),
    )
    target = _target(campaign, outcomes, variants, choices)
    found = evaluate(log, target, weight_max=weight_max, alpha=alpha)
    return CampaignEvaluation(name, found, [*_doubts(campaign, outcomes, choices), *found.warnings])


def _target(campaign: Campaign, outcomes: Sequence[Outcome], variants: Sequence[str], choices: Choices) -> Array:
    """The policy's probability of every variant for every decision, shape (n, k)."""
    known = of_campaign(choices, campaign.name)
    live = [variant for variant in campaign.variants if variant.name not in known.stopped]
    columns = [variants.index(variant.name) for variant in live]
    target = np.zeros((len(outcomes), len(variants)))
    if not live:
        return target
    total = sum(variant.weight for variant in live)
    fixed = [variant.weight / total for variant in live]
    nobody = Profile()
    for row, outcome in zip(target, outcomes, strict=True):
        shares = fixed
        if campaign.choose != "fixed":
            features = outcome.features
            shares = propensities(nobody, campaign, known, live, features=features, now_ms=outcome.decided_ms)
        row[columns] = shares
    return target


def _doubts(campaign: Campaign, outcomes: Sequence[Outcome], choices: Choices) -> list[str]:
    said = []
    names = {variant.name for variant in campaign.variants}
    if new := sorted(names - {outcome.variant for outcome in outcomes}):
        said.append(f"{', '.join(new)} was never shown: the log says nothing about it")
    if campaign.novelty is not None:
        said.append("novelty is left out: when a user saw a variant last is not logged")
    if campaign.choose == "contextual" and not any(outcome.features for outcome in outcomes):
        said.append("the outcomes carry no features: every context looks alike")
    if campaign.choose != "fixed" and choices.version:
        said.append("what was learned was learned from these outcomes too: the estimate is optimistic")
    return said
