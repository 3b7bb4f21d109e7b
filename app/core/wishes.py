"""What a user wants, from what they did with a product: viewed it, put it in a cart or a list, asked for a notice.

Only rows of a policy with a trigger on the catalog have wishes: `handlers` wraps what the engine does with a few events
then. Bounded: the oldest of more than `WISHES_MAX` goes. An order fulfils the wish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.core.batch import Batch
from app.core.browsing import Browsing, Wish
from app.core.catalog import item_hash
from app.core.items import Handler, both, fold_bought, items_of, state_of
from app.core.plan import Plan
from app.core.profile import Profile
from app.core.values import key_of, milli
from schemas.catalog import ID_CHARS_MAX
from schemas.events import ORDER_COMPLETED, PRODUCT_ADDED, PRODUCT_VIEWED, Event

WISHES_MAX: Final = 32
KINDS: Final[dict[str, int]] = {"viewed": 1, "carted": 2, "favourited": 4, "waited": 8}
"""The kinds of interest that a policy may name, as bits."""
WISHED_BY: Final[dict[str, str]] = {
    PRODUCT_VIEWED: "viewed",
    PRODUCT_ADDED: "carted",
    "Product Added to Wishlist": "favourited",
    "Stock Alert Requested": "waited",
}
ENDED_BY: Final[dict[str, str]] = {
    "Product Removed": "carted",
    "Product Removed from Wishlist": "favourited",
    "Stock Alert Cancelled": "waited",
}


def handlers(plan: Plan, engine: dict[str, Handler]) -> dict[str, Handler]:
    """What the engine does with an event, by name, and what a policy that speaks of the catalog does beside it."""
    if not any(campaign.trigger.item is not None for campaign in plan.campaigns):
        return engine
    more: dict[str, Handler] = {name: _wished(KINDS[kind]) for name, kind in WISHED_BY.items()}
    more |= {name: _ended(KINDS[kind]) for name, kind in ENDED_BY.items()}
    keeps_bought = any(campaign.recommend is not None for campaign in plan.campaigns)  # then `app.core.items` does
    more[ORDER_COMPLETED] = fold_fulfilled if keeps_bought else both(fold_bought, fold_fulfilled)
    return engine | {name: both(engine.get(name), handler) for name, handler in more.items()}


def _id_of(properties: Mapping[str, Any]) -> str:
    item_id = key_of(properties.get("product_id"))
    return item_id if len(item_id) <= ID_CHARS_MAX else ""


def _wished(kind: int) -> Handler:
    def fold_wish(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
        if item_id := _id_of(event.properties):
            item = batch.catalog.get(item_id)
            price = milli(item.price) if item is not None else None
            wish(batch, state_of(profile), item_hash(item_id), Wish(at_ms, kind, price or 0))

    return fold_wish


def wish(batch: Batch, state: Browsing, item: int, new: Wish) -> None:
    """Note an interest; the partition's index learns of an item that the row had not."""
    old = state.wishes.get(item)
    if old is None:
        if len(state.wishes) >= WISHES_MAX:
            del state.wishes[min(state.wishes, key=lambda other: state.wishes[other].at_ms)]
        state.wishes[item] = new
        batch.wished.append((item, batch.key))
        return
    old.kinds |= new.kinds
    if new.at_ms >= old.at_ms:
        old.at_ms, old.price_milli = new.at_ms, new.price_milli or old.price_milli


def _ended(kind: int) -> Handler:
    def fold_ended(_batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
        wishes = profile.browsing.wishes if profile.browsing is not None else {}
        known = wishes.get(item_hash(_id_of(event.properties)))
        if known is not None and known.at_ms <= at_ms:
            known.kinds &= ~kind
            if not known.kinds:
                del wishes[item_hash(_id_of(event.properties))]

    return fold_ended


def fold_fulfilled(_batch: Batch, profile: Profile, event: Event, _at_ms: int) -> None:
    """Nobody is told of what they have bought."""
    if profile.browsing is not None and profile.browsing.wishes:
        for item in items_of(event.properties):
            profile.browsing.wishes.pop(item_hash(item.id), None)


def merged(ours: dict[int, Wish], theirs: dict[int, Wish]) -> dict[int, Wish]:
    """The wishes of two rows of one person; what one was told, they were told."""
    for item, other in theirs.items():
        known = ours.get(item)
        if known is None:
            ours[item] = other
            continue
        newest = max(known, other, key=lambda one: one.at_ms)
        ours[item] = Wish(newest.at_ms, known.kinds | other.kinds, newest.price_milli, max(known.told, other.told))
    kept = sorted(ours.items(), key=lambda entry: (entry[1].at_ms, entry[0]))[-WISHES_MAX:]
    return dict(kept)
