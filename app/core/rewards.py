"""What a learned choice of variants has brought, where its campaign asks for more than the open at once.

A decision to send leaves a `PendingReward` in the row. What the user does within the reward's window adds to it, and it
goes out once, when the window has passed:

    decided  sent      clicked, bought, …        window's end
       |------|----------------|---------------------|
                               adds to the gain      gain -> outcomes (label `NO_EXAMPLE`)

All rewards of a campaign are equally old when they are learned: whichever comes fast is not preferred to what comes
late (delayed feedback, see `app.core.answers`). Of several decisions of one campaign, whose windows hold a conversion,
the newest has it; two campaigns may both have it. A decision that was never sent teaches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from app.core import influence, logged, timers
from app.core.batch import Batch
from app.core.campaign import Campaign, Reward
from app.core.choices import CONTEXT
from app.core.ids import full_id, stable_id
from app.core.plan import Plan
from app.core.profile import Profile
from app.core.row_parts import Output, PendingReward, Timer, slim
from app.core.values import milli, property_at
from schemas.events import Event
from schemas.outcomes import NO_EXAMPLE, Outcome, encode_outcome
from schemas.topics import OUTCOMES

Handler = Callable[[Batch, Profile, Event, int], None]

_CONTEXT_NAMES: Final = frozenset(name for name, _scale in CONTEXT)


def handlers(plan: Plan, engine: dict[str, Handler]) -> dict[str, Handler]:
    """What the engine does with an event, by name, and what campaigns that learn from conversions do beside it."""
    asking: dict[str, list[Campaign]] = {}
    for campaign in plan.campaigns:
        if campaign.reward is not None and campaign.reward.kind == "conversion":
            asking.setdefault(campaign.reward.event, []).append(campaign)
    return engine | {name: _converting(engine.get(name), campaigns) for name, campaigns in asking.items()}


def _converting(first: Handler | None, campaigns: list[Campaign]) -> Handler:
    def fold(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
        if first is not None:
            first(batch, profile, event, at_ms)
        if profile.rewards:
            for campaign in campaigns:
                _converted(batch, profile, campaign, event, at_ms)

    return fold


def _converted(batch: Batch, profile: Profile, campaign: Campaign, event: Event, at_ms: int) -> None:
    reward = campaign.reward
    assert reward is not None, "only campaigns with a reward are asked"
    newest = None
    for waiting in profile.rewards:
        if waiting.campaign == campaign.id and _since_ms(waiting) <= at_ms <= _end_ms(waiting, reward):
            newest = waiting
    if newest is None:
        return
    if not reward.value:
        newest.gain = 1
        return
    amount = milli(property_at(event.properties, tuple(reward.value.split("."))))
    if amount is None:
        batch.count("ignored_values")
        return
    newest.gain = slim(min(newest.gain + amount / 1000 / reward.value_max, 1.0))


def _since_ms(waiting: PendingReward) -> int:
    return waiting.sent_ms or waiting.decided_ms


def _end_ms(waiting: PendingReward, reward: Reward) -> int:
    return _since_ms(waiting) + reward.window_ms


def remember(batch: Batch, profile: Profile, campaign: Campaign, waiting: PendingReward) -> None:
    """Keep a decision to send until its reward is known."""
    assert campaign.reward is not None, "only campaigns with a reward wait for one"
    due_ms = waiting.decided_ms + campaign.reward.window_ms
    profile.rewards.append(waiting)
    batch.wake(profile, due_ms)
    dropped = timers.put(profile, Timer(due_ms, timers.REWARD, campaign.id, waiting.id))
    if dropped is not None:
        batch.count("dropped_timers")
        _forget(profile, dropped.key)
        batch.count("outcomes", "reward_censored")


def context_only(features: Mapping[str, float]) -> bytes:
    """Of the features, packed, those that a contextual choice looks at."""
    return logged.pack({name: value for name, value in features.items() if name in _CONTEXT_NAMES})


def find(profile: Profile, decision_id: str | None) -> PendingReward | None:
    """What waits for the reward of a decision, by its short id."""
    return next((waiting for waiting in profile.rewards if waiting.id == decision_id), None)


def sent(profile: Profile, decision_id: str | None, at_ms: int) -> None:
    """The sender's receipt: the window runs from here."""
    waiting = find(profile, decision_id)
    if waiting is not None and not waiting.sent_ms:
        waiting.sent_ms = at_ms


def failed(profile: Profile, decision_id: str | None) -> None:
    """Not delivered: nothing was tried, so there is no reward. What was answered anyway stands."""
    waiting = find(profile, decision_id)
    if waiting is not None and not waiting.gain:
        _forget(profile, waiting.id)


def answered(batch: Batch, profile: Profile, decision_id: str | None, kind: str, at_ms: int) -> None:
    """An open or a click, which is the gain of a campaign that asks for it; either says that it was sent."""
    waiting = find(profile, decision_id)
    if waiting is None:
        return
    if not waiting.sent_ms:  # the receipt comes from another producer and may come later
        waiting.sent_ms = min(at_ms, batch.now_ms)
    reward = _reward_of(batch, waiting)
    if reward is not None and reward.kind == kind and at_ms <= _end_ms(waiting, reward):
        waiting.gain = 1


def opted_out(profile: Profile, decision_id: str) -> None:
    """The user refused further messages, and this decision is blamed (`answers.fold_opted_out`)."""
    waiting = find(profile, decision_id)
    if waiting is not None:
        waiting.opted_out = 1


def matured(batch: Batch, profile: Profile, timer: Timer) -> None:
    """The window of the decision `timer.key` has ended, counted from the decision or from its sending."""
    waiting = find(profile, timer.key)
    if waiting is None:
        return
    reward = _reward_of(batch, waiting)
    if reward is not None and waiting.sent_ms and (end_ms := _end_ms(waiting, reward)) > batch.now_ms:
        timer.due_ms = end_ms
        profile.timers.append(timer)
        return
    profile.rewards = [other for other in profile.rewards if other is not waiting]
    if reward is None or not waiting.sent_ms:
        batch.count("outcomes", "reward_censored")
    elif influence.is_quarantined(profile, waiting, batch.now_ms):
        batch.count("outcomes", "quarantined")
    elif not influence.reward_teaches(profile, waiting.id, batch.now_ms):
        batch.count("outcomes", "withheld")
    else:
        _emit(batch, profile, waiting, batch.index.campaigns[waiting.campaign], reward)
        batch.count("outcomes", "reward")


def _reward_of(batch: Batch, waiting: PendingReward) -> Reward | None:
    """What the campaign asks for, if that is what it asked for when the decision was made."""
    campaign = batch.index.campaigns.get(waiting.campaign)
    if campaign is None or campaign.reward is None or stable_id(campaign.reward.name) != waiting.reward:
        return None
    return campaign.reward


def _forget(profile: Profile, decision_id: str) -> None:
    profile.rewards = [waiting for waiting in profile.rewards if waiting.id != decision_id]
    profile.timers = [timer for timer in profile.timers if timer.kind != timers.REWARD or timer.key != decision_id]


def _emit(batch: Batch, profile: Profile, waiting: PendingReward, campaign: Campaign, reward: Reward) -> None:
    model = batch.index.plan.model
    outcome = Outcome(
        id=full_id(waiting.id),
        model=model,
        label=NO_EXAMPLE,
        features=logged.unpack(waiting.features),
        score=0.0,
        model_version=0,
        campaign=campaign.name,
        decided_ms=waiting.decided_ms,
        matured_ms=batch.now_ms,
        variant=waiting.variant,
        propensity=float(waiting.propensity),
        chooser="" if campaign.choose == "fixed" else campaign.choose,
        reward=reward.name,
        gain=waiting.gain - reward.opt_out_penalty * waiting.opted_out,
        penalty=reward.opt_out_penalty,
    )
    batch.emit(profile, Output(OUTCOMES, model.encode(), encode_outcome(outcome)))
