"""The shape of a policy file, validated by pydantic; what the words mean is in docs/policy.md.

Only shapes and single values are checked here. What needs the whole file (names that refer to names, expressions,
templates) is checked in `app.policy.compile` and `campaigns`.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from app.core.locales import locale_of
from app.policy.fields import (
    STRICT,
    Amount,
    Cuts,
    DurationMs,
    EventName,
    EventNames,
    Locale,
    Minute,
    Name,
    Share,
    ShortText,
    Text,
)
from app.policy.fields import names as _names
from app.policy.fields import text as _text
from app.policy.fields import wrong as _wrong
from app.policy.item_model import ItemModel, PriceDropModel


class _Model(BaseModel):
    model_config = STRICT


class Holdout(_Model):
    """Users who get nothing promotional, so that the effect of sending can be measured."""

    share: Share
    salt: Text = "holdout"


class QuietHours(_Model):
    """Local times between which nothing is sent; `start` may be later than `end` (over midnight)."""

    start: Minute
    end: Minute

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.start == self.end:
            raise _wrong("start and end are the same time: leave quiet_hours out for none")
        return self


class CapModel(_Model):
    """At most `limit` sends in any `window`, of one category or of all."""

    limit: Annotated[int, Field(ge=1, le=200)]
    window: Annotated[DurationMs, Field(le=90 * 86_400_000)]
    category: str = ""


def _ascending(cuts: list[float]) -> list[float]:
    if any(later <= earlier for earlier, later in itertools.pairwise(cuts)):
        raise _wrong("cut points must ascend")
    return cuts


class Rfm(_Model):
    """Cut points of the RFM scores 1 to 5."""

    recency_days: Cuts = [7, 30, 90, 180]
    frequency: Cuts = [2, 4, 8, 16]
    monetary: Cuts = [50, 150, 500, 1500]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for cuts in (self.recency_days, self.frequency, self.monetary):
            _ascending(cuts)
        return self


class LifecycleModel(_Model):
    """Idle times that part the lifecycle stages."""

    new_for: DurationMs = 14 * 86_400_000
    at_risk_after: DurationMs = 14 * 86_400_000
    dormant_after: DurationMs = 30 * 86_400_000
    lost_after: DurationMs = 90 * 86_400_000

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.at_risk_after < self.dormant_after < self.lost_after:
            raise _wrong("at_risk_after, dormant_after and lost_after must ascend")
        return self


class AdaptiveModel(_Model):
    """Caps tighten for users who seem tired, to no less than a share of themselves, and recover."""

    floor: Annotated[Share, Field(gt=0)] = 0.2
    half_life: Annotated[DurationMs, Field(ge=3_600_000)] = 14 * 86_400_000


class Defaults(_Model):
    """What holds for every segment and campaign."""

    timezone: str = "UTC"
    consent: Literal["required", "assumed"] = "required"
    grace: DurationMs = 86_400_000
    future_skew: DurationMs = 300_000
    age_max: DurationMs = 400 * 86_400_000
    label_horizon: DurationMs = 86_400_000
    learn_opens: Literal["at_open", "at_horizon"] = "at_open"
    late_opens: Annotated[DurationMs, Field(ge=0, le=30 * 86_400_000)] = 0
    holdout: Holdout = Holdout(share=0.0)
    quiet_hours: QuietHours | None = None
    caps: Annotated[list[CapModel], Field(max_length=32)] = []
    adaptive_caps: AdaptiveModel | None = None
    rfm: Rfm = Rfm()
    lifecycle: LifecycleModel = LifecycleModel()
    suppressed_share: Share = 1.0
    model: Name = "open"
    segment_users_min: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    providers: Annotated[list[Literal["apns", "fcm", "webpush"]], Field(max_length=3)] = []


ModelKind = Literal["open-mix", "open-trees", "open-lr", "open-ftrl", "constant"]


class LearnedModel(_Model):
    """How a model is learned, and what happens when it drifts."""

    kind: ModelKind = "open-mix"
    challenger: ModelKind | None = None
    on_drift: Literal["alarm", "learn_faster", "fall_back"] = "alarm"
    event: EventName | None = None
    horizon: Annotated[DurationMs, Field(ge=3_600_000, le=90 * 86_400_000)] | None = None
    traits: Annotated[list[Annotated[str, Field(pattern=r"^[^=]{1,64}$")]], Field(max_length=8)] = []

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.event is not None and self.horizon is None:
            raise _wrong("say in what time the event is to happen: horizon, such as 7d")
        if self.challenger == self.kind:
            raise _wrong("the challenger must be of another kind")
        return self


class PersonasModel(_Model):
    """Groups of users that are alike, found by the learner. `names` gives p1, p2 and so on other names."""

    count_min: Annotated[int, Field(ge=1, le=12)] = 1
    count_max: Annotated[int, Field(ge=2, le=12)] = 8
    share_min: Annotated[Share, Field(ge=0.01, le=0.3)] = 0.03
    names: Annotated[dict[Annotated[str, Field(pattern=r"^p[1-9][0-9]{0,5}$")], ShortText], Field(max_length=50)] = {}

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.count_min > self.count_max:
            raise _wrong("count_min must not exceed count_max")
        return self


class TraitModel(_Model):
    """A trait that expressions may name without ``trait()``; a user without it has the default."""

    default: str | int | float | bool | None = None
    description: str = ""


class SegmentModel(_Model):
    """A named condition over a user. `until` lets users out in place of `when`, and none before `stay`.

    `minimum_size` users are worth having a segment for; without it, as many as the defaults say.
    """

    name: Name
    when: Text
    until: Text | None = None
    stay: DurationMs = 0
    description: str = ""
    minimum_size: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None


class AbsenceModel(_Model):
    """`after` happened and none of `without` did for a while, for the same value of the property `key`."""

    after: EventName
    without: EventNames
    for_: Annotated[DurationMs, Field(alias="for")]
    key: str = ""


class DormancyModel(_Model):
    """Nothing, or no event of one name, for a while."""

    for_: Annotated[DurationMs, Field(alias="for")]
    event: str = ""


_TRIGGERS = ("event", "absence", "dormancy", "enter", "leave", "schedule", "price_drop", "back_in_stock")


class ScheduleModel(_Model):
    """A cron line on the user's own clock; each user's turn comes up to `spread` later, always the same."""

    cron: Text
    spread: Annotated[DurationMs, Field(le=12 * 3_600_000)] = 0


class TriggerModel(_Model):
    """What makes a campaign a candidate: exactly one of all but `where`."""

    event: EventName | None = None
    absence: AbsenceModel | None = None
    dormancy: DormancyModel | None = None
    enter: str | None = None
    leave: str | None = None
    schedule: ScheduleModel | None = None
    price_drop: PriceDropModel | None = None
    back_in_stock: ItemModel | None = None
    where: Text | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in _TRIGGERS if getattr(self, name) is not None]
        if len(kinds) != 1:
            stated = " and ".join(kinds) or "none"
            raise _wrong(f"a trigger is one of {', '.join(_TRIGGERS)}; this has {stated}")
        if self.where is not None and kinds[0] not in ("event", "absence", "price_drop", "back_in_stock"):
            raise _wrong("where belongs to an event, an absence, or a change of the catalog")
        return self


class WordingModel(_Model):
    """The texts of a notification in one language, in Liquid; without a link, the variant's own."""

    title: Text
    body: Text
    deep_link: str | None = None


class TemplateModel(_Model):
    """The texts of a notification, in Liquid, and the same in other languages by language tag."""

    title: Text
    body: Text
    deep_link: str = ""
    locales: Annotated[dict[Locale, WordingModel], Field(max_length=64)] = {}

    @field_validator("locales", mode="before")
    @classmethod
    def _one_each(cls, locales: Any) -> Any:
        tags = list(map(locale_of, locales)) if isinstance(locales, dict) else []
        for at, tag in enumerate(tags):
            if tag and tag in tags[:at]:
                raise _wrong(f"{tag!r} stands here twice")
        return locales


class VariantModel(TemplateModel):
    """One of several wordings; `when` says who may get it."""

    name: Name
    when: Text | None = None
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0


class NoveltyModel(_Model):
    """How much less a variant is worth that the user has just seen, and how soon it has half recovered."""

    penalty: Share
    half_life: Annotated[DurationMs, Field(ge=60_000)]


RewardKind = Literal["open", "click", "conversion"]


class RewardModel(_Model):
    """What a learned choice of variants is to bring about; a word alone is its `kind`."""

    kind: RewardKind
    within: Annotated[DurationMs, Field(ge=60_000, le=30 * 86_400_000)] | None = None
    event: EventName = "Order Completed"
    value: Text | None = None
    value_max: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    opt_out_penalty: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind != "conversion" and self.model_fields_set & {"event", "value", "value_max"}:
            raise _wrong(f"event, value and value_max belong to kind: conversion, not to {self.kind}")
        if (self.value is None) != (self.value_max is None):
            raise _wrong("value and value_max go together: what is above value_max counts as it")
        return self


def _reward(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


_REWARD_SCHEMA = {"anyOf": [{"enum": ["open", "click", "conversion"]}, RewardModel.model_json_schema()]}


class SendTimeModel(_Model):
    """How long to wait for a good hour, and the share of decisions that take any hour of it."""

    within: Annotated[DurationMs, Field(ge=3_600_000, le=7 * 86_400_000)]
    choose: Literal["best", "thompson"] = "best"
    explore: Share | None = None
    novelty: NoveltyModel | None = None

    @model_validator(mode="after")
    def _explores(self) -> Self:
        if self.choose == "thompson" and self.explore == 0:
            raise _wrong("without a share of exploration some hours are never tried: explore must be above 0")
        return self


RecommendKind = Literal["viewed", "popular", "also_bought"]


class RecommendModel(_Model):
    """Products for the template, from the first of these sources that has some, and so on until there are enough."""

    kind: Annotated[list[RecommendKind], BeforeValidator(_names), Field(min_length=1, max_length=3)]
    count: Annotated[int, Field(ge=1, le=10)] = 3
    exclude_bought: bool = True
    window: Annotated[DurationMs, Field(ge=3_600_000, le=90 * 86_400_000)] = 30 * 86_400_000
    per_category: Annotated[int, Field(ge=1, le=10)] = 1
    segment: Annotated[list[Name], BeforeValidator(_names), Field(max_length=8)] = []

    @model_validator(mode="after")
    def _segment_of_popular(self) -> Self:
        if self.segment and "popular" not in self.kind:
            raise _wrong("segment says among whom a product is popular: kind must have popular")
        return self


class CampaignModel(_Model):
    """Something that may be worth saying."""

    name: Name
    category: Name
    description: str = ""
    trigger: TriggerModel
    audience: Text | None = None
    value: Amount = 1.0
    cost: Amount = 0.0
    transactional: bool = False
    expires: DurationMs = 3_600_000
    cool_down: DurationMs | None = None
    quiet_hours: Literal["defer", "drop", "ignore"] = "defer"
    template: TemplateModel | None = None
    variants: Annotated[list[VariantModel], Field(max_length=32)] = []
    experiment: str = ""
    choose: Literal["fixed", "thompson", "contextual"] = "fixed"
    explore: Share = 0.05
    novelty: NoveltyModel | None = None
    reward: Annotated[RewardModel, BeforeValidator(_reward), WithJsonSchema(_REWARD_SCHEMA)] = RewardModel(kind="open")
    holdout: Share = 0.0
    opt_out_limit: Share = 0.0
    send_time: SendTimeModel | None = None
    recommend: RecommendModel | None = None

    @model_validator(mode="after")
    def _can_choose(self) -> Self:
        if self.choose != "fixed" and len(self.variants) < 2:
            raise _wrong(f"choose: {self.choose} needs at least two variants")
        if self.choose != "fixed" and not self.explore:
            raise _wrong("without a share of exploration nothing more is learned: explore must be above 0")
        if self.novelty is not None and self.choose == "fixed":
            raise _wrong("novelty needs choose: thompson or contextual; a fixed variant is always the same")
        if self.choose == "fixed" and "reward" in self.model_fields_set:
            raise _wrong("reward needs choose: thompson or contextual; a fixed choice learns nothing")
        if self.transactional and self.send_time is not None:
            raise _wrong("a transactional message does not wait for a good hour")
        if self.transactional and self.holdout:
            raise _wrong("nobody is held out of a transactional campaign")
        return self

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if (self.template is None) == (not self.variants):
            raise _wrong("a campaign has either a template or variants")
        return self


class PolicyModel(_Model):
    """A policy file."""

    version: Annotated[Text, BeforeValidator(_text)]
    name: Name
    description: str = ""
    events: Annotated[list[EventName], Field(max_length=1000)] | None = None
    traits: dict[Name, TraitModel] = {}
    flags: dict[Name, Share] = {}
    defaults: Defaults = Defaults()
    models: Annotated[dict[Name, LearnedModel], Field(max_length=16)] = {}
    personas: PersonasModel | None = None
    segments: Annotated[list[SegmentModel], Field(max_length=2000)] = []
    campaigns: Annotated[list[CampaignModel], Field(max_length=500)] = []
