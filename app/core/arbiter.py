"""The arbiter: all candidates of a user at one instant compete, and one of them wins.

Transactional messages (a receipt, a delivery note) do not compete: each that passes the gates is sent, and then no
promotional one is. Every candidate that is not sent leaves a decision with its reason, except one that quiet hours
defer: it will be decided when they end.
"""

from __future__ import annotations

from app.core import choose, decide, guardrails, send_time, timers
from app.core.batch import Batch
from app.core.campaign import Campaign
from app.core.plan import Scorer
from app.core.profile import Profile
from app.core.row_parts import Timer, slim
from app.core.triggers import Candidate, put
from app.core.values import bounded
from app.core.weariness import opt_out_risk


def score(campaign: Campaign, open_probability: float, risk: float) -> float:
    """What sending is worth: P(open) · value - (1 + risk) · cost, in the policy's unit of value."""
    return open_probability * campaign.value - (1.0 + risk) * campaign.cost


def arbitrate(
    batch: Batch, profile: Profile, candidates: list[Candidate], scorer: Scorer, features_of: decide.FeaturesOf
) -> None:
    """Send to the user what may and should be sent now, and say why the rest is not.

    Ties go to the campaign whose name sorts first.
    """
    passed = [candidate for candidate in candidates if _passes(batch, profile, candidate)]
    if not passed:
        return
    risk = opt_out_risk(profile)
    bids = []
    for candidate in passed:
        features, probability = decide.open_bid(batch, profile, candidate, scorer, features_of)
        bids.append(decide.Bid(candidate, features, probability, score(candidate.campaign, probability, risk)))
    bids.sort(key=_rank)
    sent = False
    for bid in bids:
        reason = _loses(batch, profile, bid.candidate.campaign) if sent else ""
        if reason:
            decide.suppress(batch, profile, bid.candidate, reason, bid)
        elif (picked := decide.pick(batch, profile, bid)) is None:
            decide.suppress(batch, profile, bid.candidate, "no_variant", bid)
        elif choose.held_out(batch.user, bid.candidate.campaign):
            decide.hold_out(batch, profile, bid, scorer.version)
        else:
            decide.send(batch, profile, bid, picked, scorer.version)
            sent = True


def _rank(bid: decide.Bid) -> tuple[bool, float, str, str]:
    campaign = bid.candidate.campaign
    return (not campaign.transactional, -bid.score, campaign.name, bid.candidate.key)


def _loses(batch: Batch, profile: Profile, campaign: Campaign) -> str:
    """Why a candidate is not sent after another one was, at the same instant."""
    return guardrails.volume_refusal(batch, profile, campaign) if campaign.transactional else "outranked"


def _passes(batch: Batch, profile: Profile, candidate: Candidate) -> bool:
    """Ask the gates in the order of `SUPPRESS_REASONS`; a candidate outside its audience is none."""
    campaign = candidate.campaign
    if campaign.audience is not None and not campaign.audience(profile, batch.now_ms, batch.user):
        return False
    reason = guardrails.permission_refusal(batch, profile, candidate)
    if not reason and _waits_for_its_hour(batch, profile, candidate):
        return False
    if not reason and (until_ms := guardrails.quiet_until(batch, profile, campaign)) is not None:
        if campaign.quiet_hours == "defer":
            kind = timers.SEND_TIME if candidate.timed else timers.DEFERRED
            _defer(batch, profile, candidate, until_ms, kind)
            batch.count("decisions", "defer", "quiet_hours")
            return False
        reason = "quiet_hours"
    reason = reason or guardrails.volume_refusal(batch, profile, campaign)
    if reason:
        decide.suppress(batch, profile, candidate, reason)
    return not reason


def _waits_for_its_hour(batch: Batch, profile: Profile, candidate: Candidate) -> bool:
    """Choose the hour of a candidate that may wait for a better one; a newer candidate takes the hour of the older.

    In quiet hours that drop it, it is not waiting but dropped.
    """
    campaign = candidate.campaign
    if campaign.send_time is None or candidate.timed or campaign.transactional:
        return False
    plan = batch.index.plan
    quiet = None if campaign.quiet_hours == "ignore" else plan.quiet_hours
    if campaign.quiet_hours == "drop" and guardrails.quiet_until(batch, profile, campaign) is not None:
        return False
    waiting = timers.find(profile, timers.SEND_TIME, campaign.id, candidate.key)
    if waiting is not None:
        due_ms, candidate.slot_propensity = waiting.due_ms, float(waiting.propensity)
    else:
        slot = send_time.choose_slot(
            profile,
            campaign.send_time,
            batch.choices.hours,
            decision_id=decide.id_of(batch, candidate),
            default_timezone=plan.default_timezone,
            now_ms=batch.now_ms,
            quiet=quiet,
            campaign=campaign.name,
        )
        if slot is None:
            return False
        due_ms, candidate.slot_propensity = slot.due_ms, slot.propensity
    if due_ms <= batch.now_ms:
        return False
    _defer(batch, profile, candidate, due_ms, timers.SEND_TIME)
    batch.count("decisions", "defer", "send_time")
    return True


def _defer(batch: Batch, profile: Profile, candidate: Candidate, until_ms: int, kind: int) -> None:
    """Look at it again then; a newer candidate of the same campaign and key takes its place."""
    campaign, key = candidate.campaign, candidate.key
    waiting = timers.find(profile, kind, campaign.id, key)
    if waiting is not None:
        profile.timers.remove(waiting)
    data, chance = bounded(candidate.properties), slim(candidate.slot_propensity)
    put(batch, profile, Timer(until_ms, kind, campaign.id, key, candidate.origin, candidate.set_ms, data, chance))
