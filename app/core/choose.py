"""Which variant a decision shows, and with which probability it was chosen: exact, so that it can be learned from.

`fixed`: by a stable hash of the user, in proportion to the weights. Otherwise an exploiting choice, mixed with the
weights for the policy's share of exploration:

    propensity = (1 - explore) * exploiting + explore * weight

`thompson` exploits each variant with the probability that it is the best. `contextual` exploits the one variant with
the highest upper confidence bound for this user now. Variants that are not eligible, or that the guard stopped, sleep:
the others share what is left. With `novelty`, a variant that the user has just seen is worth less and recovers with
time (Yancey and Settles, 2020: A Sleeping, Recovering Bandit Algorithm for Optimizing Recurring Notifications, whose
penalty on scores, ``penalty * 0.5 ** (age / half_life)``, is taken from LinUCB's bound as it is, and from Thompson's
probabilities as a share).

The dice are a hash of the decision's id: the same decision is made alike however often it is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import xxhash

from app.core.campaign import Campaign, Variant
from app.core.choices import UNTAUGHT, CampaignChoices, Choices, context_of, of_campaign
from app.core.ids import BUCKETS, bucket, stable_id
from app.core.profile import Profile

SHOWN_MAX: Final = 64
"""Variants whose last time a row remembers; beyond, the oldest is forgotten, and counts as new again."""


class Pick(NamedTuple):
    """A variant, the probability with which it was chosen, and by what (see `Decision.chooser`)."""

    variant: Variant
    propensity: float
    chooser: str = ""
    version: int = 0


def pick(
    profile: Profile,
    campaign: Campaign,
    choices: Choices,
    *,
    user: str,
    decision_id: str,
    features: Mapping[str, float],
    now_ms: int,
) -> Pick | None:
    """Choose the variant of a decision to send; None when every variant sleeps."""
    known = of_campaign(choices, campaign.name)
    live = [
        variant
        for variant in campaign.variants
        if variant.name not in known.stopped and (variant.eligible is None or variant.eligible(profile, now_ms, user))
    ]
    if not live:
        return None
    if campaign.choose == "fixed":
        variant, propensity = pick_variant(user, campaign, live)
        return Pick(variant, propensity)
    shares = propensities(profile, campaign, known, live, features=features, now_ms=now_ms)
    at = _draw(shares, decision_id)
    return Pick(live[at], shares[at], campaign.choose, choices.version)


def pick_variant(user: str, campaign: Campaign, live: Sequence[Variant] | None = None) -> tuple[Variant, float]:
    """The user's variant of a campaign, by stable hash, and its propensity.

    A user keeps the variant as long as it is among `live` (all when None): only those whose variant sleeps are
    spread over the others.

    Returns
    -------
    tuple
        The variant and its share of the weights, in (0, 1].
    """
    salt = campaign.experiment or campaign.name
    variant, propensity = _by_weight(campaign.variants, bucket(user, f"variant\x1f{salt}"))
    if live is None or len(live) == len(campaign.variants):
        return variant, propensity
    whole = sum(other.weight for other in live)
    if any(other is variant for other in live):
        return variant, variant.weight / whole
    return _by_weight(live, bucket(user, f"asleep\x1f{salt}"))


def _by_weight(variants: Sequence[Variant], number: int) -> tuple[Variant, float]:
    total = sum(variant.weight for variant in variants)
    point = number / BUCKETS * total
    for variant in variants:
        point -= variant.weight
        if point < 0:
            return variant, variant.weight / total
    last = variants[-1]
    return last, last.weight / total


def propensities(
    profile: Profile,
    campaign: Campaign,
    known: CampaignChoices,
    live: Sequence[Variant],
    *,
    features: Mapping[str, float],
    now_ms: int,
) -> list[float]:
    """The probability of each live variant, summing to 1, of a campaign whose choice is not `fixed`."""
    total = sum(variant.weight for variant in live)
    weights = [variant.weight / total for variant in live]
    tired = [tiredness(profile, campaign, variant, now_ms) for variant in live]
    if campaign.choose == "thompson":
        exploiting = _thompson(known, live, weights, tired)
    else:
        exploiting = _contextual(known, live, tired, features)
    explore = campaign.explore
    return [(1 - explore) * best + explore * weight for best, weight in zip(exploiting, weights, strict=True)]


def _thompson(
    known: CampaignChoices, live: Sequence[Variant], weights: Sequence[float], tired: Sequence[float]
) -> list[float]:
    """Probabilities of being the best, of the live ones; a variant that has taught nothing has its weight's share."""
    raw = [
        known.best.get(variant.name, weight) * (1 - penalty)
        for variant, weight, penalty in zip(live, weights, tired, strict=True)
    ]
    total = sum(raw)
    return [share / total for share in raw] if total > 0 else list(weights)


def _contextual(
    known: CampaignChoices, live: Sequence[Variant], tired: Sequence[float], features: Mapping[str, float]
) -> list[float]:
    """All on the highest bound; equal ones share, so an untaught campaign is uniform."""
    x = context_of(features)
    bounds = [
        known.linear.get(variant.name, UNTAUGHT).upper(x) - penalty
        for variant, penalty in zip(live, tired, strict=True)
    ]
    best = max(bounds)
    winners = sum(bound == best for bound in bounds)
    return [(bound == best) / winners for bound in bounds]


def tiredness(profile: Profile, campaign: Campaign, variant: Variant, now_ms: int) -> float:
    """What a variant loses for having been seen lately, see `Novelty`; 0 without."""
    novelty = campaign.novelty
    if novelty is None:
        return 0.0
    shown_ms = profile.shown.get(_shown_key(campaign, variant))
    if shown_ms is None:
        return 0.0
    return float(novelty.penalty * 0.5 ** (max(now_ms - shown_ms, 0) / novelty.half_life_ms))


def remember_shown(profile: Profile, campaign: Campaign, variant: Variant, now_ms: int) -> None:
    """Note when the user saw the variant, where the campaign asks for it."""
    if campaign.novelty is not None:
        remember(profile, _shown_key(campaign, variant), now_ms)


def remember(profile: Profile, key: int, now_ms: int) -> None:
    """Note when the user had what `key` stands for; the oldest beyond `SHOWN_MAX` is forgotten."""
    shown = profile.shown
    shown[key] = now_ms
    if len(shown) > SHOWN_MAX:
        del shown[min(shown, key=lambda key: (shown[key], key))]


def _shown_key(campaign: Campaign, variant: Variant) -> int:
    return stable_id(f"{campaign.name}\x1f{variant.name}")


def dice(decision_id: str, salt: str) -> float:
    """A number in [0, 1) that depends on the decision and the salt only."""
    return (xxhash.xxh3_64_intdigest(f"{salt}\x1f{decision_id}".encode()) >> 11) / float(1 << 53)


def _draw(shares: Sequence[float], decision_id: str) -> int:
    point = dice(decision_id, "variant")
    for at, share in enumerate(shares):
        point -= share
        if point < 0:
            return at
    return max(at for at, share in enumerate(shares) if share > 0)


def held_out(user: str, campaign: Campaign) -> bool:
    """Whether the user is held out of this campaign, by a stable hash that is independent of the variant's."""
    share = campaign.holdout_share
    return share > 0 and bucket(user, f"holdout\x1f{campaign.experiment or campaign.name}") < share * BUCKETS
