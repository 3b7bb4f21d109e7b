"""What makes a campaign a candidate: an event, its absence, silence, or a change of segment.

A wait counts from when its event was seen, if that is later than when it happened: what a late user's stream has not
brought yet (the order that would end the wait) is as late. An event later than the policy's grace triggers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app.core import timers
from app.core.batch import Batch
from app.core.campaign import Campaign
from app.core.catalog import still_holds
from app.core.cron import next_at_ms
from app.core.expression_judge import Moves
from app.core.ids import BUCKETS, bucket, stable_id
from app.core.index import EventOps
from app.core.plan import event_id
from app.core.profile import Profile
from app.core.row_parts import Timer
from app.core.values import bounded, key_of
from schemas.events import Event


class Candidate(msgspec.Struct):
    """A campaign that wants to speak to the user now.

    `origin` is the source offset of the event or the due time of the timer; with campaign and `key` it makes the
    decision's id. `at_ms` is when it became a candidate, `properties` those of the event that it is about. `timed` says
    that its hour was chosen (`app.core.send_time`), `slot_propensity` with which probability. `id` is that of its
    decision once it was asked for, see `app.core.decide.id_of`.
    """

    campaign: Campaign
    key: str
    origin: int
    at_ms: int
    properties: Mapping[str, Any]
    set_ms: int = 0
    timed: bool = False
    slot_propensity: float = 1.0
    id: str = ""


def _key(campaign: Campaign, properties: Mapping[str, Any]) -> str:
    name = campaign.trigger.key_property
    return key_of(properties.get(name)) if name else ""


def on_event(batch: Batch, profile: Profile, ops: EventOps, event: Event, at_ms: int, offset: int) -> list[Candidate]:
    """Cancel waits that the event ends, begin those that it starts, and name the campaigns that it triggers."""
    properties = event.properties
    for campaign in ops.cancels:
        timers.cancel(profile, campaign.id, _key(campaign, properties) or None, before_ms=at_ms)
    if at_ms < batch.now_ms - batch.index.grace_ms:
        return []
    for campaign in ops.dormancies:
        ref = campaign.id
        for timer in profile.timers:
            if timer.ref == ref and timer.kind == timers.DORMANCY:
                break
        else:
            _arm_dormancy(batch, profile, campaign, at_ms, offset)
    if ops.schedules:
        arm_schedules(batch, profile)
    candidates: list[Candidate] = []
    if not ops.starts:
        return candidates
    for campaign in ops.on_event:
        where = campaign.trigger.where
        if where is None or where(properties):
            candidates.append(Candidate(campaign, _key(campaign, properties), offset, at_ms, properties, at_ms))
    for campaign in ops.absences:
        where = campaign.trigger.where
        if where is None or where(properties):
            _start_wait(batch, profile, campaign, properties, at_ms, offset)
    return candidates


def _start_wait(
    batch: Batch, profile: Profile, campaign: Campaign, properties: Mapping[str, Any], at_ms: int, offset: int
) -> None:
    # A start that arrives after its own end has nothing to wait for. `last` has no keys, so an order of another cart
    # silences a late one too: rather one reminder too few.
    if any(profile.last.number(name, 0) > at_ms for name in batch.index.cancel_ids[campaign.id]):
        return
    due_ms = batch.now_ms + campaign.trigger.wait_ms
    key = _key(campaign, properties)
    waiting = timers.find(profile, timers.ABSENCE, campaign.id, key)
    if waiting is None:
        put(batch, profile, Timer(due_ms, timers.ABSENCE, campaign.id, key, offset, at_ms, bounded(properties)))
    elif at_ms >= waiting.set_ms:
        waiting.due_ms, waiting.set_ms, waiting.origin = due_ms, at_ms, offset
        waiting.data = bounded(properties)


def _arm_dormancy(batch: Batch, profile: Profile, campaign: Campaign, at_ms: int, offset: int) -> None:
    """One timer a campaign; it is not moved by later activity but looks for it when due."""
    due_ms = batch.now_ms + campaign.trigger.wait_ms
    put(batch, profile, Timer(due_ms, timers.DORMANCY, campaign.id, "", offset, at_ms))


def arm_schedules(batch: Batch, profile: Profile) -> None:
    """Have the row wait for the next time of every scheduled campaign, on the clock of the user's present zone."""
    for campaign in batch.index.schedules:
        ref, origin = campaign.id, _schedule_id(campaign)
        for timer in profile.timers:
            if timer.ref == ref and timer.kind == timers.SCHEDULE:
                if timer.key != profile.timezone or timer.origin != origin:
                    profile.timers.remove(timer)
                    _arm_schedule(batch, profile, campaign, origin)
                break
        else:
            _arm_schedule(batch, profile, campaign, origin)


def _arm_schedule(batch: Batch, profile: Profile, campaign: Campaign, origin: int) -> None:
    """The time after now, whatever was missed: a worker that was away for a day sends the newest, if any."""
    trigger = campaign.trigger
    zone = profile.timezone
    later_ms = bucket(batch.user, campaign.name) * trigger.spread_ms // BUCKETS
    at_ms = next_at_ms(trigger.cron, zone, batch.index.plan.default_timezone, batch.now_ms - later_ms)
    put(batch, profile, Timer(at_ms + later_ms, timers.SCHEDULE, campaign.id, zone, origin, at_ms))


def _schedule_id(campaign: Campaign) -> int:
    return stable_id(f"{campaign.trigger.cron}\x1f{campaign.trigger.spread_ms}")


def put(batch: Batch, profile: Profile, timer: Timer) -> None:
    """Add a timer to the row, counting the one that had to give way."""
    batch.wake(profile, timer.due_ms)
    if timers.put(profile, timer) is not None:
        batch.count("dropped_timers")


def on_moves(batch: Batch, moves: Moves, properties: Mapping[str, Any], origin: int) -> list[Candidate]:
    """The campaigns that follow from entering or leaving segments."""
    return [
        Candidate(campaign, "", origin, batch.now_ms, properties, batch.now_ms)
        for segment, inside in moves
        for campaign in batch.index.started(segment, inside)
    ]


def on_timer(batch: Batch, profile: Profile, timer: Timer) -> Candidate | None:
    """What a wait that has ended leads to: a candidate, another wait, or nothing."""
    campaign = batch.index.campaigns.get(timer.ref)
    if campaign is None:  # the policy has changed since
        batch.count("dropped_timers")
        return None
    if timer.kind in timers.DEFERRALS:
        return _resume(batch, profile, campaign, timer)
    if timer.kind == timers.SCHEDULE:
        return _on_schedule(batch, profile, campaign, timer)
    if timer.kind == timers.DORMANCY:
        timer.set_ms = _newest_activity_ms(profile, campaign)
        due_ms = timer.set_ms + campaign.trigger.wait_ms
        if due_ms > batch.now_ms:
            timer.due_ms = due_ms
            profile.timers.append(timer)
            return None
    return Candidate(campaign, timer.key, timer.due_ms, timer.due_ms, timer.data, timer.set_ms)


def _on_schedule(batch: Batch, profile: Profile, campaign: Campaign, timer: Timer) -> Candidate | None:
    if campaign.trigger.kind != "schedule":
        batch.count("dropped_timers")
        return None
    origin = _schedule_id(campaign)
    _arm_schedule(batch, profile, campaign, origin)
    if timer.origin != origin or timer.key != profile.timezone:  # set for another schedule, or on another clock
        return None
    return Candidate(campaign, "", timer.due_ms, timer.due_ms, {}, timer.set_ms)


def _resume(batch: Batch, profile: Profile, campaign: Campaign, timer: Timer) -> Candidate | None:
    """A deferred candidate, if what made it one still holds (an ended absence was cancelled by its event)."""
    trigger = campaign.trigger
    if trigger.kind == "dormancy" and _newest_activity_ms(profile, campaign) > timer.set_ms:
        return None
    if trigger.kind in ("enter", "leave"):
        inside = batch.index.segment_id.get(trigger.segment) in profile.segments
        if inside is not (trigger.kind == "enter"):
            return None
    if trigger.item is not None and not still_holds(batch.catalog, profile.browsing, timer.data):
        return None
    made = Candidate(campaign, timer.key, timer.origin, timer.due_ms, timer.data, timer.set_ms)
    if timer.kind == timers.SEND_TIME:
        made.timed, made.slot_propensity = True, float(timer.propensity)
    return made


def _newest_activity_ms(profile: Profile, campaign: Campaign) -> int:
    name = campaign.trigger.event
    return profile.last.number(event_id(name), 0) if name else profile.seen_ms
