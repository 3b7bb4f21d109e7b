"""Parts of a campaign from what a policy says of them to what the core reads; none can be wrong by now."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from app.core.campaign import ItemTrigger, Novelty, Recommend, SendTime, Trigger, Where
from app.core.wishes import KINDS
from app.policy.item_model import ItemModel
from app.policy.model import CampaignModel, NoveltyModel, RecommendModel, SendTimeModel, TriggerModel

SLOT_EXPLORE: Final = {"best": 0.1, "thompson": 0.03}
"""An estimate that nobody draws from needs more chance to find hours that it thinks little of."""


def novelty(model: NoveltyModel | None) -> Novelty | None:
    """How a variant wears off, if it does."""
    return None if model is None else Novelty(model.penalty, model.half_life)


def send_time(model: SendTimeModel | None) -> SendTime | None:
    """How long to wait for a good hour, if at all."""
    if model is None:
        return None
    explore = SLOT_EXPLORE[model.choose] if model.explore is None else model.explore
    return SendTime(model.within, explore, model.choose, novelty(model.novelty))


def catalog_trigger(model: TriggerModel, where: Where | None) -> Trigger | None:
    """The trigger, if it is one on the catalog."""
    drop = model.price_drop
    if drop is not None:
        return Trigger("price_drop", where=where, item=replace(_of(drop), by=drop.by, price_from=drop.price_from))
    if model.back_in_stock is not None:
        return Trigger("back_in_stock", where=where, item=_of(model.back_in_stock))
    return None


def _of(model: ItemModel) -> ItemTrigger:
    return ItemTrigger(sum(KINDS[kind] for kind in set(model.interest)), model.within, model.affinity or 0.0)


def more_roots(model: CampaignModel) -> frozenset[str]:
    """What the campaign's templates may speak of beside the common roots."""
    trigger = model.trigger
    about_item = trigger.price_drop is not None or trigger.back_in_stock is not None
    return frozenset({"items"} if model.recommend is not None else ()) | frozenset({"item"} if about_item else ())


def recommendation(model: RecommendModel | None) -> Recommend | None:
    """The recommendation slot, if the campaign has one."""
    if model is None:
        return None
    kinds, segments = tuple(model.kind), tuple(model.segment)
    return Recommend(kinds, model.count, model.exclude_bought, model.window, model.per_category, segments)
