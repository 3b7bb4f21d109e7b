"""The arbiter's gates, each asked, and in words: what stands between a campaign and a user now.

`app.core.guardrails` decides; this only looks. The first closed gate is the reason that the arbiter would give. A
reason of the guardrails that is not known here is shown by its name alone, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from app.core import choose, guardrails, weariness
from app.core.batch import Batch
from app.core.campaign import Campaign
from app.core.durations import format_duration
from app.core.expression_explain import format_age
from app.core.ids import BUCKETS, bucket, stable_id
from app.core.plan import AdaptiveCaps, Cap
from app.core.profile import Profile
from app.core.triggers import Candidate

REASON_TEXTS: Final = {
    "expired": "it came up too long ago",
    "consent": "the user has not agreed to notifications",
    "category_opt_out": "the user has opted out of this category",
    "quiet_hours": "it is night where the user is",
    "holdout": "the user is in the holdout group, which gets nothing",
    "frequency_cap": "enough was sent to this user already",
    "adaptive_cap": "the user seems tired of notifications, so fewer are sent for a while",
    "cool_down": "the same campaign was sent to this user not long ago",
    "no_variant": "no wording is eligible for this user, or all were stopped",
    "campaign_holdout": "the user is held out of this campaign, to measure its effect",
    "outranked": "another message was worth more at that moment",
}
"""What a reason of `schemas.decisions.SUPPRESS_REASONS` means, for people."""

_CONSENT: Final = {1: "given", 0: "refused", -1: "never asked"}


class Gate(msgspec.Struct, frozen=True):
    """One gate: its reason code, whether it lets the message pass, and what it saw."""

    name: str
    open: bool
    detail: str


def gates(batch: Batch, profile: Profile, campaign: Campaign) -> tuple[Gate, ...]:
    """Every gate that binds a campaign that became a candidate just now, in the order in which they are asked.

    Parameters
    ----------
    batch
        With `user` and `now_ms` set; nothing is added to it.
    """
    found = list(_gates(batch, profile, campaign))
    reason = refusal(batch, profile, campaign)
    if reason and not any(gate.name == reason and not gate.open for gate in found):
        found.append(Gate(reason, False, ""))
    return tuple(found)


def refusal(batch: Batch, profile: Profile, campaign: Campaign) -> str:
    """What the gates say of a candidate of this instant: a reason, or empty."""
    candidate = Candidate(campaign, "", -1, batch.now_ms, {})
    if reason := guardrails.permission_refusal(batch, profile, candidate):
        return reason
    if guardrails.quiet_until(batch, profile, campaign) is not None:
        return "quiet_hours"
    if reason := guardrails.volume_refusal(batch, profile, campaign):
        return reason
    return "campaign_holdout" if choose.held_out(batch.user, campaign) else ""


def _gates(batch: Batch, profile: Profile, campaign: Campaign) -> Iterator[Gate]:
    plan = batch.index.plan
    needed = "required" if plan.consent_required else "assumed unless refused"
    allowed = profile.consent == 1 or (profile.consent != 0 and not plan.consent_required)
    yield Gate("consent", allowed, f"{_CONSENT.get(profile.consent, '?')} ({needed})")
    yield Gate("category_opt_out", campaign.category not in profile.opted_out, campaign.category)
    if campaign.send_time is not None and not campaign.transactional:
        yield Gate("send_time", True, "may wait for an hour that is better for this user")
    if plan.quiet_hours is not None and campaign.quiet_hours != "ignore":
        yield _quiet(batch, profile, campaign)
    if not campaign.transactional:
        if plan.holdout_share > 0:
            share = bucket(batch.user, plan.holdout_salt) / BUCKETS
            inside = share < plan.holdout_share
            yield Gate("holdout", not inside, f"bucket {share:.2%}, held out below {plan.holdout_share:.2%}")
        for cap in plan.caps:
            if not cap.category or cap.category == campaign.category:
                yield _cap(batch, profile, cap)
        if plan.adaptive is not None:
            yield _adaptive(batch, profile, campaign, plan.adaptive)
    if campaign.cool_down_ms:
        yield _cool_down(batch, profile, campaign)
    if campaign.holdout_share > 0:
        inside = choose.held_out(batch.user, campaign)
        yield Gate("campaign_holdout", not inside, f"{campaign.holdout_share:.2%} of all are held out")


def _quiet(batch: Batch, profile: Profile, campaign: Campaign) -> Gate:
    until_ms = guardrails.quiet_until(batch, profile, campaign)
    if until_ms is None:
        return Gate("quiet_hours", True, f"day in {profile.timezone or batch.index.plan.default_timezone}")
    what = "would wait" if campaign.quiet_hours == "defer" else "would be dropped"
    return Gate("quiet_hours", False, f"{what}; they end in {format_age(until_ms - batch.now_ms)}")


def _cap(batch: Batch, profile: Profile, cap: Cap) -> Gate:
    oldest_ms = guardrails.memory_now_ms(batch, profile) - cap.window_ms
    category = stable_id(cap.category) if cap.category else 0
    counted = sum(
        send.at_ms > oldest_ms and (send.category == category if category else send.category != guardrails.UNCAPPED)
        for send in profile.sends
    )
    of = f" of {cap.category}" if cap.category else ""
    detail = f"{counted} of {cap.limit}{of} in {format_duration(cap.window_ms)}"
    return Gate("frequency_cap", counted < cap.limit, detail)


def _adaptive(batch: Batch, profile: Profile, campaign: Campaign, adaptive: AdaptiveCaps) -> Gate:
    now_ms = guardrails.memory_now_ms(batch, profile)
    share = weariness.share_of_caps(profile, adaptive, now_ms)
    closed = guardrails.tight_cap_reached(batch, profile, campaign, adaptive, now_ms)
    return Gate("adaptive_cap", not closed, f"{share:.0%} of the caps is left to this user")


def _cool_down(batch: Batch, profile: Profile, campaign: Campaign) -> Gate:
    newest_ms = max((send.at_ms for send in profile.sends if send.campaign == campaign.id), default=None)
    now_ms = guardrails.memory_now_ms(batch, profile)
    length = format_duration(campaign.cool_down_ms)
    if newest_ms is None:
        return Gate("cool_down", True, f"not sent within {length}")
    sent = f"sent {format_age(max(now_ms - newest_ms, 0))} ago, again after {length}"
    return Gate("cool_down", newest_ms <= now_ms - campaign.cool_down_ms, sent)
