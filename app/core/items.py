"""What a row knows of products, for policies that recommend some: those viewed lately, and those bought.

Both are bounded and commute: whatever the order of arrival, the newest by event time stay. An order goes to the learner
as a basket, at most `BASKETS_DAY_MAX` of a user and day, so that no single user makes a product popular.

The hot path does not know of this: `handlers` wraps what the engine does with two events, and only if a policy asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from app.core.batch import Batch
from app.core.browsing import (
    Browsing,
    Item,
    Viewed,
    add_purchases,
    add_view,
    joined_purchases,
    newest_views,
    pack_views,
    views_of,
)
from app.core.ids import bucket, decision_id, stable_id
from app.core.plan import Plan
from app.core.profile import Profile
from app.core.row_parts import Output
from app.core.values import key_of, name_of
from schemas.events import ORDER_COMPLETED, PRODUCT_VIEWED, Event
from schemas.outcomes import NO_EXAMPLE, Outcome, encode_outcome
from schemas.topics import OUTCOMES

BASKET_MAX: Final = 20
"""Products of an order that are learned; of a longer one the first."""
BASKETS_DAY_MAX: Final = 8
ID_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 60
LEARNED_KINDS: Final = frozenset({"popular", "also_bought"})
SEGMENTS_MAX: Final = 16
"""Segments that a policy's recommendations may name."""
_DAY_MS: Final = 86_400_000

Handler = Callable[[Batch, Profile, Event, int], None]


def handlers(plan: Plan, engine: dict[str, Handler]) -> dict[str, Handler]:
    """What the engine does with an event, by name, and what a policy that recommends does beside it."""
    wishes = [campaign.recommend for campaign in plan.campaigns if campaign.recommend is not None]
    if not wishes:
        return engine
    teaches = any(LEARNED_KINDS.intersection(wish.kinds) for wish in wishes)
    named = {name: stable_id(name) for wish in wishes for name in wish.segments}
    more = {PRODUCT_VIEWED: fold_view, ORDER_COMPLETED: _teaching(named) if teaches else fold_bought}
    return engine | {name: both(engine.get(name), handler) for name, handler in more.items()}


def both(first: Handler | None, second: Handler) -> Handler:
    """One handler after the other."""
    if first is None:
        return second

    def run_both(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
        first(batch, profile, event, at_ms)
        second(batch, profile, event, at_ms)

    return run_both


def item_of(properties: object) -> Item | None:
    """The product that these properties speak of (`product_id`, `category`, `name`); None when it has no id."""
    if type(properties) is not dict:
        return None
    product = properties.get("product_id")
    if type(product) is not str:
        product = key_of(product)
    if not 0 < len(product) <= ID_CHARS_MAX:
        return None
    name = properties.get("name")
    return Item(product, name_of(properties.get("category")), name[:NAME_CHARS_MAX] if type(name) is str else "")


def items_of(properties: dict[str, Any]) -> Iterator[Item]:
    """The products of an order, each once: its `products`, or the one that it is."""
    products = properties.get("products")
    seen: set[str] = set()
    for entry in products if type(products) is list else [properties]:
        if (item := item_of(entry)) is not None and item.id not in seen:
            seen.add(item.id)
            yield item


def fold_view(_batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Remember a product that was looked at."""
    if (item := item_of(event.properties)) is not None:
        add_view(state_of(profile), Viewed(at_ms, item))


def fold_bought(_batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Remember the products of an order."""
    _remember_bought(profile, list(items_of(event.properties)), at_ms)


def _remember_bought(profile: Profile, items: list[Item], at_ms: int) -> None:
    if items:
        add_purchases(state_of(profile), [stable_id(item.id) for item in items], at_ms)


def _teaching(segments: Mapping[str, int]) -> Handler:
    """As `fold_bought`; and the learner hears what was bought together, and by users of which of these segments."""

    def fold_bought_and_teach(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
        items = list(items_of(event.properties))
        if not items:
            return
        _remember_bought(profile, items, at_ms)
        state = state_of(profile)
        day = batch.now_ms // _DAY_MS
        state.baskets = state.baskets + 1 if day == state.day else 1
        state.day = day
        if state.baskets > BASKETS_DAY_MAX:
            return
        model = batch.index.plan.model
        offset = batch.source.offset if batch.source is not None else batch.mark
        outcome = Outcome(
            id=decision_id(batch.user, "basket", "", offset),
            model=model,
            label=NO_EXAMPLE,
            features={"bucket": float(bucket(batch.user, "basket"))},
            score=0.0,
            model_version=0,
            campaign="",
            decided_ms=at_ms,
            matured_ms=batch.now_ms,
            items=[[item.id, item.category, item.name] for item in items[:BASKET_MAX]],
            segments=[name for name, segment in segments.items() if segment in profile.segments],
        )
        batch.emit(profile, Output(OUTCOMES, model.encode(), encode_outcome(outcome)))

    return fold_bought_and_teach


def state_of(profile: Profile) -> Browsing:
    """What the row knows of products, begun if need be."""
    if profile.browsing is None:
        profile.browsing = Browsing()
    return profile.browsing


def merged(ours: Browsing | None, theirs: Browsing | None) -> Browsing | None:
    """What two rows of one person know together."""
    if ours is None or theirs is None:
        return ours or theirs
    return msgspec.structs.replace(
        ours,
        viewed=pack_views(newest_views(views_of(ours) + views_of(theirs))),
        bought=joined_purchases(ours, theirs),
        baskets=ours.baskets + theirs.baskets if ours.day == theirs.day else max(ours, theirs, key=_day).baskets,
        day=max(ours.day, theirs.day),
    )


def _day(state: Browsing) -> int:
    return state.day
