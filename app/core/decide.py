"""Decisions: a candidate that won, or lost and why, as the record that leaves.

Everything that made the decision is logged in it: features, probability, model and policy version, the variant's
propensity. So it can be explained later, and learned from, without asking what the world looked like.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from app.core import answers, choose, devices, guardrails, logged, rewards, send_time
from app.core.batch import Batch, trace_of
from app.core.campaign import Campaign
from app.core.choose import Pick
from app.core.ids import BUCKETS, bucket, decision_id, short_id, stable_id
from app.core.plan import Plan, Scorer
from app.core.profile import Profile
from app.core.recommend import as_context, slot
from app.core.row_parts import Output, Pending, PendingReward, slim
from app.core.triggers import Candidate
from schemas.decisions import Content, Decision, decision_headers, encode_decision
from schemas.topics import DECISIONS

FeaturesOf = Callable[[Profile, Campaign, int, Plan], dict[str, float]]


class Bid(msgspec.Struct):
    """A candidate that passed its gates, and what sending it is worth."""

    candidate: Candidate
    features: dict[str, float]
    open_probability: float
    score: float


def open_bid(
    batch: Batch, profile: Profile, candidate: Candidate, scorer: Scorer, features_of: FeaturesOf
) -> tuple[dict[str, float], float]:
    """Features of the candidate, as float32 (see `app.core.logged`), and P(open); 0 when the model gives no number."""
    features = logged.rounded(features_of(profile, candidate.campaign, batch.now_ms, batch.index.plan))
    probability = scorer.open_probability(features)
    if not 0.0 <= probability <= 1.0 or math.isnan(probability):
        batch.count("invalid_scores")
        probability = 0.0
    return features, probability


def render_context(profile: Profile, candidate: Candidate, about: frozenset[str] | None) -> dict[str, Any]:
    """What a template may speak of, or, of `profile`, does. Amounts are in units, not thousandths."""
    campaign = candidate.campaign
    about_item = campaign.trigger.item is not None
    context: dict[str, Any] = {
        "user": profile.traits,
        "event": {} if about_item else candidate.properties,
        "item": candidate.properties if about_item else {},
        "campaign": {"name": campaign.name, "category": campaign.category},
    }
    if about is None or "profile" in about:  # seldom, and as long to make as all the rest
        context["profile"] = {
            "orders": profile.orders,
            "revenue": profile.revenue_milli / 1000,
            "sent": profile.sent,
            "opened": profile.opened,
            "device": profile.device,
            "timezone": profile.timezone,
            "locale": profile.locale,
            "favourite": max(profile.affinity, key=lambda name: profile.affinity[name], default=""),
        }
    return context


def pick(batch: Batch, profile: Profile, bid: Bid) -> Pick | None:
    """The variant that a bid would show; None when all of them sleep."""
    candidate = bid.candidate
    return choose.pick(
        profile,
        candidate.campaign,
        batch.choices,
        user=batch.user,
        decision_id=id_of(batch, candidate),
        features=bid.features,
        now_ms=batch.now_ms,
    )


def send(batch: Batch, profile: Profile, bid: Bid, picked: Pick, model_version: int) -> None:
    """Decide to send: the decision leaves, and the row remembers it for caps and for its label."""
    candidate = bid.candidate
    campaign = candidate.campaign
    variant, propensity = picked.variant, picked.propensity
    tokens = devices.tokens(profile)
    context = render_context(profile, candidate, variant.about)
    sources: list[list[str]] = []
    if campaign.recommend is not None:
        chosen = slot(profile, campaign.recommend, batch.items, candidate.properties, batch.now_ms)
        context["items"] = as_context(item for item, _ in chosen)
        sources = [[item.id, source] for item, source in chosen]
    rendered = variant.render(context)
    made = _decision(
        batch,
        candidate,
        "send",
        variant=variant.name,
        propensity=propensity,
        transactional=campaign.transactional,
        content=Content(title=rendered.title, body=rendered.body, deep_link=rendered.deep_link),
        expires_ms=batch.now_ms + campaign.expires_ms,
        open_probability=bid.open_probability,
        value=bid.score,
        model_version=model_version,
        features=bid.features,
        token=tokens[0] if tokens else None,
        more_tokens=tokens[1:],
        chooser=picked.chooser,
        choice_version=picked.version,
        slot_propensity=candidate.slot_propensity,
        items=sources,
    )
    _emit(batch, profile, made)
    batch.count("decisions", "send", "")
    if batch.source is not None:
        batch.latencies_ms.append(batch.source.timestamp)
    guardrails.remember_send(batch, profile, campaign)
    choose.remember_shown(profile, campaign, variant, batch.now_ms)
    send_time.remember_used(profile, campaign, batch.index.plan.default_timezone, batch.now_ms)
    short, chance = short_id(made.id), slim(propensity)
    pending = Pending(
        id=short,
        campaign=campaign.name,
        variant=variant.name,
        decided_ms=batch.now_ms,
        sent_ms=0,
        score=bid.open_probability,
        model_version=model_version,
        propensity=chance,
        features=logged.pack(bid.features),
        events=profile.events,
    )
    answers.remember(batch, profile, pending, campaign.id)
    if campaign.reward is not None:
        seen = rewards.context_only(bid.features) if campaign.choose == "contextual" else b""
        waiting = PendingReward(
            id=short,
            campaign=campaign.id,
            variant=variant.name,
            decided_ms=batch.now_ms,
            reward=stable_id(campaign.reward.name),
            propensity=chance,
            features=seen,
            events=profile.events,
        )
        rewards.remember(batch, profile, campaign, waiting)


def suppress(batch: Batch, profile: Profile, candidate: Candidate, reason: str, bid: Bid | None = None) -> None:
    """Decide not to send. Always counted; the record is emitted for the policy's share of them."""
    batch.count("decisions", "suppress", reason)
    share = batch.index.plan.suppressed_share
    if share <= 0.0:
        return
    if share < 1.0 and bucket(id_of(batch, candidate), "suppressed") >= share * BUCKETS:
        return
    made = _decision(
        batch,
        candidate,
        "suppress",
        reason=reason,
        open_probability=bid.open_probability if bid else 0.0,
        value=bid.score if bid else 0.0,
    )
    _emit(batch, profile, made)


def hold_out(batch: Batch, profile: Profile, bid: Bid, model_version: int) -> None:
    """Decide not to send what would have been sent, to measure what sending does.

    The record always leaves, whatever share of the suppressed ones does: those held out are half of an experiment. The
    campaign's cool-down runs as if it had been sent, so that both halves are asked equally often; caps do not count it.
    """
    candidate = bid.candidate
    batch.count("decisions", "suppress", "campaign_holdout")
    made = _decision(
        batch,
        candidate,
        "suppress",
        reason="campaign_holdout",
        propensity=candidate.campaign.holdout_share,
        open_probability=bid.open_probability,
        value=bid.score,
        model_version=model_version,
        features=bid.features,
    )
    _emit(batch, profile, made)
    guardrails.remember_send(batch, profile, candidate.campaign, counted=False)


def id_of(batch: Batch, candidate: Candidate) -> str:
    """The decision's id, the same however often, and whenever, it is made."""
    if not candidate.id:
        candidate.id = decision_id(batch.user, candidate.campaign.name, candidate.key, candidate.origin)
    return candidate.id


def _decision(
    batch: Batch,
    candidate: Candidate,
    action: Literal["send", "suppress"],
    *,
    reason: str = "",
    variant: str = "",
    propensity: float = 1.0,
    transactional: bool = False,
    content: Content | None = None,
    expires_ms: int = 0,
    open_probability: float = 0.0,
    value: float = 0.0,
    model_version: int = 0,
    features: dict[str, float] | None = None,
    token: dict[str, Any] | None = None,
    more_tokens: list[dict[str, Any]] | None = None,
    chooser: str = "",
    choice_version: int = 0,
    slot_propensity: float = 1.0,
    items: list[list[str]] | None = None,
) -> Decision:
    """Every field by its name: `Decision(**fields)` takes two and a half times as long."""
    campaign = candidate.campaign
    return Decision(
        id=id_of(batch, candidate),
        user=batch.user,
        campaign=campaign.name,
        category=campaign.category,
        decided_ms=batch.now_ms,
        trigger=campaign.trigger.kind,
        trigger_key=candidate.key,
        policy_version=batch.index.plan.version,
        source_ms=candidate.set_ms,
        source_offset=batch.source.offset if batch.source is not None else -1,
        action=action,
        reason=reason,
        variant=variant,
        propensity=propensity,
        transactional=transactional,
        content=content,
        expires_ms=expires_ms,
        open_probability=open_probability,
        value=value,
        model_version=model_version,
        features=features or {},
        token=token or {},
        more_tokens=more_tokens or [],
        chooser=chooser,
        choice_version=choice_version,
        slot_propensity=slot_propensity,
        items=items or [],
    )


def _emit(batch: Batch, profile: Profile, decision: Decision) -> None:
    headers = decision_headers(decision, trace_of(batch.source))
    batch.emit(profile, Output(DECISIONS, batch.key, encode_decision(decision), headers))
