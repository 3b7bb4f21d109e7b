"""Why a variant: what each one's chances are for a user now, and what they come of.

The chances are asked of the code that chooses (`app.core.choose`); here is only told what it looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from app.core.campaign import Campaign
from app.core.choices import UNTAUGHT, Choices, context_of, of_campaign
from app.core.choose import pick_variant, propensities, tiredness
from app.core.profile import Profile


class VariantView(msgspec.Struct, frozen=True):
    """A variant as one user would meet it.

    Parameters
    ----------
    status
        "awake", "not eligible" (its `when` does not hold), or "stopped" by the guard on opt-outs.
    weight
        Its share of the weights of all variants.
    propensity
        The probability of being chosen now, 0 while it sleeps; of a `fixed` choice 1 or 0, as the user's hash has it.
    best
        Of `thompson`: the probability that it is the best one; None when it has taught nothing.
    estimate, bound
        Of `contextual`: what is expected for this user now, and that plus what is not known yet.
    tired
        What it loses for having been seen lately (`novelty`): in rates of `contextual`, a share of `thompson`.
    """

    name: str
    status: Literal["awake", "not eligible", "stopped"]
    weight: float
    propensity: float
    best: float | None = None
    estimate: float | None = None
    bound: float | None = None
    tired: float = 0.0


def variants(
    profile: Profile, campaign: Campaign, choices: Choices, *, user: str, features: Mapping[str, float], now_ms: int
) -> tuple[VariantView, ...]:
    """Every variant of a campaign, in the policy's order, if its trigger came now."""
    known = of_campaign(choices, campaign.name)
    status: dict[str, Literal["awake", "not eligible", "stopped"]] = {}
    for variant in campaign.variants:
        eligible = variant.eligible is None or variant.eligible(profile, now_ms, user)
        asleep: Literal["awake", "not eligible"] = "awake" if eligible else "not eligible"
        status[variant.name] = "stopped" if variant.name in known.stopped else asleep
    live = [variant for variant in campaign.variants if status[variant.name] == "awake"]
    chances: dict[str, float] = {}
    if live and campaign.choose == "fixed":
        chances = {pick_variant(user, campaign, live)[0].name: 1.0}
    elif live:
        shares = propensities(profile, campaign, known, live, features=features, now_ms=now_ms)
        chances = {variant.name: share for variant, share in zip(live, shares, strict=True)}
    x = context_of(features)
    whole = sum(variant.weight for variant in campaign.variants)
    found = []
    for variant in campaign.variants:
        arm = known.linear.get(variant.name, UNTAUGHT) if campaign.choose == "contextual" else None
        found.append(
            VariantView(
                name=variant.name,
                status=status[variant.name],
                weight=variant.weight / whole if whole else 0.0,
                propensity=chances.get(variant.name, 0.0),
                best=known.best.get(variant.name) if campaign.choose == "thompson" else None,
                estimate=None if arm is None else arm.mean(x),
                bound=None if arm is None else arm.upper(x),
                tired=tiredness(profile, campaign, variant, now_ms),
            )
        )
    return tuple(found)


def learned_arms(
    choices: Choices, campaign: str, chooser: str, features: Mapping[str, float]
) -> tuple[VariantView, ...]:
    """What was learned of a campaign's variants, for a decision that was made with these features: without the policy,
    so without weights, eligibility and propensities.
    """
    known = of_campaign(choices, campaign)
    x = context_of(features)
    names = known.best if chooser == "thompson" else known.linear
    found = []
    for name in sorted({*names, *known.stopped}):
        arm = known.linear.get(name, UNTAUGHT) if chooser == "contextual" else None
        found.append(
            VariantView(
                name=name,
                status="stopped" if name in known.stopped else "awake",
                weight=0.0,
                propensity=0.0,
                best=known.best.get(name) if chooser == "thompson" else None,
                estimate=None if arm is None else arm.mean(x),
                bound=None if arm is None else arm.upper(x),
            )
        )
    return tuple(found)
