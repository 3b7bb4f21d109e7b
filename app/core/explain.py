"""One user, explained: who they are, why they are in each segment or not, and what could be said to them now.

Pure: the row, the time and the policy are arguments. Whatever decides here is asked of the code that decides in earnest
(conditions, guardrails, score); this module only arranges the answers. A message triggered now is what is explained: a
decision that was made is explained by its own record (`explain_score`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from app.core import explain_choice, explain_items, owed, timers
from app.core.arbiter import score
from app.core.batch import Batch
from app.core.campaign import Campaign
from app.core.catalog import NO_CATALOG, Catalog
from app.core.choices import NOTHING_KNOWN, Choices
from app.core.decide import FeaturesOf
from app.core.durations import format_duration
from app.core.explain_choice import VariantView
from app.core.explain_gates import Gate, gates, refusal
from app.core.explain_items import ProductView, ThresholdView, WishView
from app.core.expression_explain import Clause, Explain, explain_expression, explain_hysteresis
from app.core.id_map import IdMap
from app.core.ids import full_id, stable_id
from app.core.index import PlanIndex
from app.core.item_table import NO_ITEMS, ItemTable
from app.core.logged import rounded
from app.core.name_map import NameMap
from app.core.plan import Plan, Scorer, Segment, event_id
from app.core.profile import FIELDS, Profile
from app.core.row_parts import Timer
from app.core.scores import OPEN, persona_of
from app.core.weariness import opt_out_risk
from app.core.window_map import WindowMap
from schemas.percentiles import Percentiles

Contributions = Callable[[Mapping[str, float]], Mapping[str, float]]
"""A model's `explain_one`: log-odds by feature, with ``bias``."""

_TIMERS: Final = {
    timers.ABSENCE: "absence",
    timers.DORMANCY: "dormancy",
    timers.SCHEDULE: "schedule",
    timers.HORIZON: "label horizon",
    timers.DEFERRED: "quiet hours end",
    timers.SEND_TIME: "a good hour to send",
    timers.LOOK: "the daily look for",
    timers.REWARD: "reward window",
}


class Share(msgspec.Struct, frozen=True):
    """What one feature adds to the log-odds of an open; ``bias`` is where every user starts."""

    feature: str
    value: float
    log_odds: float


class SegmentView(msgspec.Struct, frozen=True):
    """A segment as one user meets it: `inside` is what the row says, `clause.holds` the condition at this moment."""

    name: str
    description: str
    inside: bool
    since_ms: int
    clause: Clause | None


class CampaignView(msgspec.Struct, frozen=True):
    """A campaign, if its trigger came now.

    `verdict` is "send", "not in the audience" or the reason of the first closed gate. It does not know of other
    candidates of the same instant, which may outrank it.
    """

    name: str
    category: str
    trigger: str
    verdict: str
    audience: Clause | None
    gates: tuple[Gate, ...]
    open_probability: float
    value: float
    cost: float
    opt_out_risk: float
    score: float
    shares: tuple[Share, ...]
    choose: str = "fixed"
    choice_version: int = 0
    variants: tuple[VariantView, ...] = ()
    products: tuple[ProductView, ...] = ()
    """What its slot would show."""


class PendingView(msgspec.Struct, frozen=True):
    """A decision to send that is not labelled yet."""

    id: str
    campaign: str
    variant: str
    decided_ms: int
    sent_ms: int
    open_probability: float


class TimerView(msgspec.Struct, frozen=True):
    """Something that will be looked at by the clock."""

    kind: str
    due_ms: int
    campaign: str
    key: str


class UserView(msgspec.Struct, frozen=True):
    """Everything that there is to say of one user at `now_ms`."""

    user: str
    now_ms: int
    policy_version: str
    model: str
    model_version: int
    profile: dict[str, Any]
    segments: tuple[SegmentView, ...]
    campaigns: tuple[CampaignView, ...]
    pending: tuple[PendingView, ...]
    timers: tuple[TimerView, ...]
    wishes: tuple[WishView, ...] = ()
    thresholds: tuple[ThresholdView, ...] = ()


def explain_score(features: Mapping[str, float], contributions: Contributions | None) -> tuple[Share, ...]:
    """The contributions to a score, largest first, ``bias`` at the top; empty without a model that gives them."""
    if contributions is None:
        return ()
    shares = dict(contributions(features))
    bias = shares.pop("bias", 0.0)
    largest = sorted(shares, key=lambda name: (-abs(shares[name]), name))
    return (Share("bias", 1.0, bias), *(Share(name, features.get(name, 0.0), shares[name]) for name in largest))


def profile_summary(profile: Profile, plan: Plan) -> dict[str, Any]:
    """The row in words. Times are milliseconds; recency is of the events that the policy names."""
    names = sorted(plan.events)
    last = {name: profile.last[event_id(name)] for name in names if event_id(name) in profile.last}
    favourites = sorted(profile.affinity, key=lambda name: -profile.affinity[name])[:5]
    return {
        "events": profile.events,
        "first_ms": profile.first_ms,
        "seen_ms": profile.seen_ms,
        "consent": {1: "given", 0: "refused"}.get(profile.consent, "never asked"),
        "opted_out": list(profile.opted_out),
        "timezone": profile.timezone,
        "device": profile.device,
        "devices": len(profile.devices),
        "traits": dict(profile.traits),
        "orders": profile.orders,
        "revenue": profile.revenue_milli / 1000,
        "sent": profile.sent,
        "opened": profile.opened,
        "clicked": profile.clicked,
        "dismissed": profile.dismissed,
        "ignored_run": profile.ignored_run,
        "favourites": favourites,
        "persona": persona_of(profile) or "",
        "last_ms": last,
        "offset": profile.offset,
    }


def _as_json(value: object) -> Any:
    return msgspec.to_builtins(
        dict(value.items()) if isinstance(value, IdMap | NameMap | WindowMap) else value, str_keys=True
    )


def row_as_json(profile: Profile) -> dict[str, Any]:
    """The row's fields by name. Of the devices, whose keys are push tokens, and of what it owes only the number."""
    shown: dict[str, Any] = {name: _as_json(getattr(profile, name)) for name in FIELDS}
    shown["devices"] = len(profile.devices)
    shown["outbox"] = len(owed.outputs(profile, b""))
    del shown["owed"]
    return shown


class Explainer:
    """Explains users under one policy version; its clauses are compiled once.

    Parameters
    ----------
    index
        The policy in force, as the processor reads it.
    features_of
        What the model is told, as the arbiter is given it.
    """

    def __init__(self, index: PlanIndex, features_of: FeaturesOf) -> None:
        self.index = index
        self._features_of = features_of
        plan = index.plan
        self._segments = tuple((segment, self._compiled(segment)) for segment in plan.segments)
        self._audiences = {
            campaign.name: explain_expression(campaign.audience_text, plan.context)
            for campaign in plan.campaigns
            if campaign.audience_text
        }

    def _compiled(self, segment: Segment) -> Explain | None:
        if segment.until or segment.stay_ms:
            return explain_hysteresis(segment, self.index.plan.context)
        if segment.condition is None:  # made by hand: there is no text behind it
            return None
        return explain_expression(segment.expression, self.index.plan.context)

    def user(
        self,
        user: str,
        profile: Profile,
        now_ms: int,
        scorer: Scorer,
        contributions: Contributions | None,
        choices: Choices = NOTHING_KNOWN,
        *,
        items: ItemTable = NO_ITEMS,
        catalog: Catalog = NO_CATALOG,
        percentiles: Mapping[str, Percentiles] | None = None,
    ) -> UserView:
        """The user of that row at `now_ms`, by what the worker serves. The row is not changed."""
        plan = self.index.plan
        batch = Batch(self.index, now_ms, choices)
        batch.user, batch.key = user, user.encode()
        names = {campaign.id: campaign.name for campaign in plan.campaigns}
        return UserView(
            user=user,
            now_ms=now_ms,
            policy_version=plan.version,
            model=plan.model,
            model_version=scorer.version,
            profile=profile_summary(profile, plan),
            segments=tuple(self._segment(segment, explain, profile, batch) for segment, explain in self._segments),
            campaigns=tuple(
                self._campaign(part, profile, batch, scorer, contributions, items) for part in plan.campaigns
            ),
            pending=tuple(
                PendingView(full_id(one.id), one.campaign, one.variant, one.decided_ms, one.sent_ms, one.score)
                for one in profile.pending
            ),
            timers=tuple(
                TimerView(_TIMERS.get(one.kind, str(one.kind)), one.due_ms, names.get(one.ref, ""), self._key_of(one))
                for one in sorted(profile.timers, key=lambda timer: timer.due_ms)
            ),
            wishes=explain_items.wishes(profile, catalog),
            thresholds=explain_items.thresholds(percentiles or {}),
        )

    def _key_of(self, timer: Timer) -> str:
        if timer.kind == timers.LOOK:
            of = {timers.PERSONAS: "persona", stable_id(OPEN): "opens"}
            model = self.index.propensity_by_id.get(timer.ref)
            return of.get(timer.ref, "") if model is None else model[0]
        return full_id(timer.key) if timer.kind in (timers.HORIZON, timers.REWARD) else timer.key

    @staticmethod
    def _segment(segment: Segment, explain: Explain | None, profile: Profile, batch: Batch) -> SegmentView:
        return SegmentView(
            name=segment.name,
            description=segment.description,
            inside=segment.id in profile.segments,
            since_ms=profile.segments.number(segment.id, 0),
            clause=explain(profile, batch.now_ms, batch.user) if explain else None,
        )

    def _campaign(
        self,
        campaign: Campaign,
        profile: Profile,
        batch: Batch,
        scorer: Scorer,
        contributions: Contributions | None,
        items: ItemTable,
    ) -> CampaignView:
        explain = self._audiences.get(campaign.name)
        features = rounded(self._features_of(profile, campaign, batch.now_ms, self.index.plan))
        probability, risk = scorer.open_probability(features), opt_out_risk(profile)
        heard = campaign.audience is None or campaign.audience(profile, batch.now_ms, batch.user)
        return CampaignView(
            name=campaign.name,
            category=campaign.category,
            trigger=describe_trigger(campaign),
            verdict=(refusal(batch, profile, campaign) or "send") if heard else "not in the audience",
            audience=explain(profile, batch.now_ms, batch.user) if explain else None,
            gates=gates(batch, profile, campaign),
            open_probability=probability,
            value=campaign.value,
            cost=campaign.cost,
            opt_out_risk=risk,
            score=score(campaign, probability, risk),
            shares=explain_score(features, contributions),
            choose=campaign.choose,
            choice_version=batch.choices.version,
            variants=explain_choice.variants(
                profile, campaign, batch.choices, user=batch.user, features=features, now_ms=batch.now_ms
            ),
            products=explain_items.products(profile, campaign, items, batch.now_ms),
        )


def describe_trigger(campaign: Campaign) -> str:
    """What starts a campaign, in words."""
    trigger = campaign.trigger
    if trigger.kind == "event":
        return f"on {trigger.event}"
    if trigger.kind == "absence":
        cancel = " or ".join(sorted(trigger.cancel))
        return f"{format_duration(trigger.wait_ms)} after {trigger.event} without {cancel}"
    if trigger.kind == "dormancy":
        return f"after {format_duration(trigger.wait_ms)} without {trigger.event or 'any event'}"
    if trigger.kind == "schedule":
        return f"at {trigger.cron} on the user's clock"
    if trigger.kind == "price_drop":
        return "when an item that the user wants becomes cheaper"
    if trigger.kind == "back_in_stock":
        return "when an item that the user wants can be bought again"
    return f"when the user {'enters' if trigger.kind == 'enter' else 'leaves'} {trigger.segment}"
