"""Why a candidate may not speak: the gates, asked in the order of `SUPPRESS_REASONS`."""

from __future__ import annotations

from typing import Final

from app.core import local_time, weariness
from app.core.batch import Batch
from app.core.campaign import Campaign
from app.core.ids import BUCKETS, bucket
from app.core.index import CLOCK_BACK_MS
from app.core.plan import AdaptiveCaps
from app.core.profile import Profile
from app.core.row_parts import SendMemory
from app.core.triggers import Candidate

SENDS_MAX: Final = 256
"""Sends that a row remembers. When full, nothing that a cap or a cool-down binds is sent: neither is ever passed by."""

UNCAPPED: Final = 0
"""The category under which a transactional send is remembered: caps do not count it, its cool-down does."""


def permission_refusal(batch: Batch, profile: Profile, candidate: Candidate) -> str:
    """The gates that nothing but the user, or time, can open: the reason, or empty."""
    campaign = candidate.campaign
    if batch.now_ms - candidate.at_ms > campaign.expires_ms:
        return "expired"
    if profile.consent != 1 and (profile.consent == 0 or batch.index.plan.consent_required):
        return "consent"
    if campaign.category in profile.opted_out:
        return "category_opt_out"
    return ""


def quiet_until(batch: Batch, profile: Profile, campaign: Campaign) -> int | None:
    """The end of the quiet hours that bind this campaign now, or None."""
    plan = batch.index.plan
    if plan.quiet_hours is None or campaign.quiet_hours == "ignore":
        return None
    return local_time.quiet_until(profile.timezone, plan.default_timezone, batch.now_ms, plan.quiet_hours)


def volume_refusal(batch: Batch, profile: Profile, campaign: Campaign) -> str:
    """The gates on whom and how much we send: the reason, or empty."""
    plan = batch.index.plan
    now_ms = memory_now_ms(batch, profile)
    if not campaign.transactional:
        if plan.holdout_share > 0 and bucket(batch.user, plan.holdout_salt) < plan.holdout_share * BUCKETS:
            return "holdout"
        if _cap_reached(batch, profile, campaign, now_ms):
            return "frequency_cap"
        if plan.adaptive is not None and tight_cap_reached(batch, profile, campaign, plan.adaptive, now_ms):
            return "adaptive_cap"
    if campaign.cool_down_ms:
        oldest_ms = now_ms - campaign.cool_down_ms
        if _is_full(batch, profile) or any(
            send.campaign == campaign.id and send.at_ms > oldest_ms for send in profile.sends
        ):
            return "cool_down"
    return ""


def memory_now_ms(batch: Batch, profile: Profile) -> int:
    """The instant from which windows are counted backwards.

    A worker's clock may be behind the one that decided last: then what counts at its own time counts, and later sends
    too. No further behind than `CLOCK_BACK_MS`, since what counted before may be forgotten.
    """
    return max(batch.now_ms, profile.sends[-1].at_ms - CLOCK_BACK_MS) if profile.sends else batch.now_ms


def _newest_ms(batch: Batch, profile: Profile) -> int:
    return max(batch.now_ms, profile.sends[-1].at_ms) if profile.sends else batch.now_ms


def _cap_reached(batch: Batch, profile: Profile, campaign: Campaign, now_ms: int) -> bool:
    sends = profile.sends
    if batch.index.caps and _is_full(batch, profile):
        return True
    for limit, window_ms, category in batch.index.caps:
        if category and category != campaign.category_id:
            continue
        if _counted(sends, category, now_ms - window_ms) >= limit:
            return True
    return False


def tight_cap_reached(batch: Batch, profile: Profile, campaign: Campaign, adaptive: AdaptiveCaps, now_ms: int) -> bool:
    """Whether the user has had the share of a cap that is left to them (`app.core.weariness`)."""
    share = weariness.share_of_caps(profile, adaptive, now_ms)
    if share >= 1.0:
        return False
    for limit, window_ms, category in batch.index.caps:
        if category and category != campaign.category_id:
            continue
        sends, tight_ms = weariness.tightened(limit, window_ms, share)
        if _counted(profile.sends, category, now_ms - tight_ms) >= sends:
            return True
    return False


def _counted(sends: list[SendMemory], category: int, oldest_ms: int) -> int:
    """Sends later than `oldest_ms` that a cap on `category` (0: on all) counts."""
    counted = 0
    for send in reversed(sends):
        if send.at_ms <= oldest_ms:
            break
        counted += send.category == category if category else send.category != UNCAPPED
    return counted


def _is_full(batch: Batch, profile: Profile) -> bool:
    sends = profile.sends
    return len(sends) >= SENDS_MAX and sends[0].at_ms > _newest_ms(batch, profile) - batch.index.memory_ms


def remember_send(batch: Batch, profile: Profile, campaign: Campaign, *, counted: bool = True) -> None:
    """Keep a decision to send for as long as a cap (if `counted`) or a cool-down may ask for it.

    Its time is no earlier than that of the one before: a cap that counts by these never counts too few.
    """
    now_ms = _newest_ms(batch, profile)
    oldest_ms = now_ms - batch.index.memory_ms
    sends = [send for send in profile.sends if send.at_ms > oldest_ms]
    category = UNCAPPED if campaign.transactional or not counted else campaign.category_id
    if category != UNCAPPED or campaign.cool_down_ms:
        sends.append(SendMemory(now_ms, campaign.id, category))
    profile.sends = sends[-SENDS_MAX:]  # more only where there is neither a cap nor a cool-down to need them
