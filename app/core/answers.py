"""Receipts and answers to notifications, and the labels that they mature into.

A label is known later than its features: the decision leaves a `Pending` in the row with what the model saw. An open
within the horizon makes it 1, the horizon's end makes it 0, if the sender said that it was sent; else nothing was tried
and there is no example (censored).

    decided   sent      opened           horizon's end
       |-------|----------|--------------------|
                          1                    0      the row, always; the example, by default
                                             1 or 0   the example, if the policy lets opens wait
                                               |---1  an example of 0 taken back, if the policy has `late_opens`

Examples of opens that come at once and of the rest a horizon later bias the learner: it sees only opens at a cold
start, and too many whenever traffic grows (delayed feedback: Chapelle 2014, Modeling Delayed Feedback in Display
Advertising; Ktena et al. 2019). Their remedies (a model of the delay, weighted fake negatives) cost a second model or
a second example. Examples of equal age cost nothing where the horizon is short.
"""

from __future__ import annotations

from typing import Final

from app.core import identity, influence, local_time, logged, open_rates, rewards, timers, weariness
from app.core.batch import Batch
from app.core.ids import full_id, short_id, stable_id
from app.core.label_history import push_label
from app.core.profile import Profile
from app.core.row_parts import EMITTED, IN_TIME, LATE, SILENT, Output, Pending, Timer
from schemas.events import Event
from schemas.outcomes import LATE_OPEN, LATE_OPT_OUT, Outcome, encode_outcome
from schemas.topics import OUTCOMES

SILENT_MAX: Final = 4
"""Decisions whose features wait for a late open: some 100 bytes each, and only where a policy asks for it."""


def _decision(event: Event) -> str | None:
    """The short id of the decision that the event names."""
    decision_id = event.properties.get("decisionId")
    return short_id(decision_id) if isinstance(decision_id, str) else None


def _pending(profile: Profile, event: Event) -> Pending | None:
    if profile.pending and (decision_id := _decision(event)) is not None:
        for pending in profile.pending:
            if pending.id == decision_id:
                return pending
    return None


def fold_sent(_batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """The sender's receipt: the label's horizon runs from here."""
    if profile.rewards:
        rewards.sent(profile, _decision(event), at_ms)
    pending = _pending(profile, event)
    if pending is None:
        profile.sent += 1
    elif not pending.sent_ms:
        pending.sent_ms = at_ms
        profile.sent += 1


def fold_failed(batch: Batch, profile: Profile, event: Event, _at_ms: int) -> None:
    """Not delivered: there is nothing to learn. An open that came anyway stands."""
    if profile.rewards:
        rewards.failed(profile, _decision(event))
    pending = _pending(profile, event)
    if pending is None or pending.answered:
        return
    if pending.sent_ms:  # e.g. accepted first, bounced later
        profile.sent -= 1
    profile.pending.remove(pending)
    profile.timers = [timer for timer in profile.timers if timer.kind != timers.HORIZON or timer.key != pending.id]
    batch.count("outcomes", "censored")


def fold_opened(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """An open counts once for a decision, and is an open even when its decision is no longer remembered."""
    if profile.rewards:
        rewards.answered(batch, profile, _decision(event), "open", at_ms)
    pending = _pending(profile, event)
    if pending is not None:
        if pending.answered == SILENT:
            _opened_late(batch, profile, pending)
        elif pending.answered:
            return
        else:
            _opened(batch, profile, pending, at_ms)
    profile.opened += 1
    profile.ignored_run = 0
    if batch.index.plan.adaptive is not None:
        weariness.opened(profile, batch.index.plan.adaptive, at_ms)
    hour = local_time.hour_of_week(profile.timezone, batch.index.plan.default_timezone, at_ms)
    profile.hours[hour] = profile.hours.get(hour, 0) + 1


def _opened(batch: Batch, profile: Profile, pending: Pending, at_ms: int) -> None:
    if not pending.sent_ms:  # the receipt comes from another producer and may come later
        pending.sent_ms = min(at_ms, batch.now_ms)
        profile.sent += 1
    pending.answered = IN_TIME if at_ms <= _horizon_end_ms(batch, pending) else LATE
    _count_label(profile, pending, int(pending.answered == IN_TIME))
    if not batch.index.plan.opens_wait:
        _mature(batch, profile, pending)
        pending.answered, pending.features = EMITTED, b""  # the id stays: a second open is not counted


def _opened_late(batch: Batch, profile: Profile, pending: Pending) -> None:
    """Take back the example that said "not opened". It went out with the label of then, and stays one example."""
    at_ms = pending.sent_ms or pending.decided_ms
    profile.open_rates = open_rates.count(profile.open_rates, at_ms, opens=1.0)
    hour = _hour_of(batch, profile, pending)
    profile.hour_opens[hour] = profile.hour_opens.get(hour, 0) + 1
    if influence.is_quarantined(profile, pending, batch.now_ms):
        batch.count("outcomes", "quarantined")
    elif pending.variant:
        _emit_outcome(batch, profile, pending, LATE_OPEN)
        batch.count("outcomes", "late_open")
    pending.answered, pending.features = EMITTED, b""
    pending.opted_out, pending.clicked = 0, 1  # what comes now is after the horizon


def fold_clicked(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Counted; the label is the open."""
    profile.clicked += 1
    if profile.rewards:
        rewards.answered(batch, profile, _decision(event), "click", at_ms)
    pending = _pending(profile, event)
    if pending is not None and not pending.clicked:
        pending.clicked = LATE if pending.answered == EMITTED else 1
        profile.open_rates = open_rates.count(profile.open_rates, pending.sent_ms or pending.decided_ms, clicks=1.0)


def fold_dismissed(batch: Batch, profile: Profile, _event: Event, at_ms: int) -> None:
    """Counted; raises the user's price of being disturbed (`app.core.arbiter`), and tightens adaptive caps."""
    profile.dismissed += 1
    if batch.index.plan.adaptive is not None:
        weariness.dismissed(profile, batch.index.plan.adaptive, at_ms)


def fold_opted_out(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Consent withdrawn, and put down to the notification that the event names, else to the newest before it.

    Only the first refusal counts: whoever has refused already was not driven away by what came since.
    """
    refused = profile.consent == 0
    identity.fold_disabled(batch, profile, event, at_ms)
    if refused:
        return
    blamed = _pending(profile, event)
    if blamed is None:
        earlier = [pending for pending in profile.pending if (pending.sent_ms or pending.decided_ms) <= at_ms]
        blamed = earlier[-1] if earlier else None
    if blamed is not None and at_ms <= _horizon_end_ms(batch, blamed) and influence.is_blamed(profile, at_ms):
        blamed.opted_out = 1
        if profile.rewards:
            rewards.opted_out(profile, blamed.id)


def remember(batch: Batch, profile: Profile, pending: Pending, campaign_id: int) -> None:
    """Keep a decision to send until its label matures."""
    due_ms = pending.decided_ms + batch.index.plan.label_horizon_ms
    profile.pending.append(pending)
    timer = Timer(due_ms, timers.HORIZON, campaign_id, pending.id)
    batch.wake(profile, due_ms)
    dropped = timers.put(profile, timer)
    if dropped is not None:
        batch.count("dropped_timers")
        _forget(batch, profile, dropped.key)


def horizon_passed(batch: Batch, profile: Profile, timer: Timer) -> None:
    """The label horizon of the decision `timer.key` has ended, counted from the decision or from its sending."""
    pending = next((other for other in profile.pending if other.id == timer.key), None)
    if pending is None:
        return
    if pending.answered == SILENT:
        _forget(batch, profile, pending.id)
        return
    end_ms = _horizon_end_ms(batch, pending)
    if pending.sent_ms and pending.answered != EMITTED and end_ms > batch.now_ms:
        timer.due_ms = end_ms
        profile.timers.append(timer)
        return
    if not pending.sent_ms or pending.answered == EMITTED:
        if pending.answered == EMITTED and pending.variant and (pending.opted_out or pending.clicked == LATE):
            _emit_outcome(batch, profile, pending, LATE_OPT_OUT)
        _forget(batch, profile, pending.id)
        return
    if not pending.answered:
        _count_label(profile, pending, 0)
        profile.ignored_run += 1
        if batch.index.plan.adaptive is not None:
            weariness.ignored(profile, batch.index.plan.adaptive, batch.now_ms)
    _mature(batch, profile, pending)
    if batch.index.plan.late_opens_ms and not pending.answered:
        _await_late(batch, profile, pending, timer)
    else:
        profile.pending = [other for other in profile.pending if other.id != pending.id]


def _await_late(batch: Batch, profile: Profile, pending: Pending, timer: Timer) -> None:
    """Keep the features of what was not opened for as long as a late open counts; the oldest give way."""
    silent = [other.id for other in profile.pending if other.answered == SILENT]
    if len(silent) >= SILENT_MAX:
        _forget(batch, profile, silent[0])
        profile.timers = [other for other in profile.timers if other.kind != timers.HORIZON or other.key != silent[0]]
    pending.answered = SILENT
    timer.due_ms = _horizon_end_ms(batch, pending) + batch.index.plan.late_opens_ms
    profile.timers.append(timer)


def _horizon_end_ms(batch: Batch, pending: Pending) -> int:
    return (pending.sent_ms or pending.decided_ms) + batch.index.plan.label_horizon_ms


def _forget(batch: Batch, profile: Profile, decision_id: str) -> None:
    """Give up a label, that of an open as well: censoring only what was not opened would bias the examples."""
    kept = []
    for pending in profile.pending:
        if pending.id != decision_id:
            kept.append(pending)
        elif pending.answered not in (EMITTED, SILENT):
            batch.count("outcomes", "censored")
    profile.pending = kept


def _count_label(profile: Profile, pending: Pending, label: int) -> None:
    """What later decisions are told of this answer."""
    profile.labels = push_label(profile.labels, label)
    at_ms = pending.sent_ms or pending.decided_ms
    profile.open_rates = open_rates.count(profile.open_rates, at_ms, labels=1.0, opens=label)


def _mature(batch: Batch, profile: Profile, pending: Pending) -> None:
    label = int(pending.answered == IN_TIME)
    hour = _hour_of(batch, profile, pending)
    profile.hour_sends[hour] = profile.hour_sends.get(hour, 0) + 1
    if label:
        profile.hour_opens[hour] = profile.hour_opens.get(hour, 0) + 1
    if influence.is_quarantined(profile, pending, batch.now_ms):
        _withhold(batch, pending, "quarantined")
    elif not influence.teaches(profile, pending.id, batch.now_ms):
        _withhold(batch, pending, "withheld")
    else:
        _emit_outcome(batch, profile, pending, label)
        batch.count("outcomes", str(label))


def _withhold(batch: Batch, pending: Pending, why: str) -> None:
    """No example goes out, and so nothing that follows it either."""
    pending.variant = ""
    batch.count("outcomes", why)


def _hour_of(batch: Batch, profile: Profile, pending: Pending) -> int:
    at_ms = pending.sent_ms or pending.decided_ms
    return local_time.hour_of_week(profile.timezone, batch.index.plan.default_timezone, at_ms)


def _emit_outcome(batch: Batch, profile: Profile, pending: Pending, label: int) -> None:
    model = batch.index.plan.model
    campaign = batch.index.campaigns.get(stable_id(pending.campaign))
    outcome = Outcome(
        id=full_id(pending.id),
        model=model,
        label=label,
        features=logged.unpack(pending.features),
        score=pending.score,
        model_version=pending.model_version,
        campaign=pending.campaign,
        decided_ms=pending.decided_ms,
        matured_ms=batch.now_ms,
        variant=pending.variant,
        propensity=float(pending.propensity),
        clicked=int(pending.clicked > 0),
        opted_out=pending.opted_out,
        chooser="" if campaign is None or campaign.choose == "fixed" else campaign.choose,
        opt_out_limit=0.0 if campaign is None else campaign.opt_out_limit,
        hour=_hour_of(batch, profile, pending),
        reward="" if campaign is None or campaign.reward is None else campaign.reward.name,
    )
    batch.emit(profile, Output(OUTCOMES, model.encode(), encode_outcome(outcome)))
