"""What a user wants, what a slot would show them, and where percentiles begin: for people.

Asked of the code that decides (`app.core.recommend`), or read from where it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app.core.campaign import Campaign
from app.core.catalog import Catalog, item_hash
from app.core.item_table import ItemTable
from app.core.profile import Profile
from app.core.recommend import slot
from app.core.wishes import KINDS
from schemas.percentiles import Percentiles


class WishView(msgspec.Struct, frozen=True):
    """An item that the user wants.

    Parameters
    ----------
    item, name
        Empty where this worker's catalog does not have it (any more): rows know items by a hash.
    kinds
        What they did with it, as `interest` of a policy names it.
    price, price_now
        What they last saw or were told, and what the catalog says; None when that is not known.
    told
        Version of the item of which they were told last; -1 for never.
    """

    item: str
    name: str
    kinds: tuple[str, ...]
    at_ms: int
    price: float | None
    price_now: float | None
    in_stock: bool | None
    told: int


class ProductView(msgspec.Struct, frozen=True):
    """A product that a slot would show, and from which source."""

    id: str
    name: str
    category: str
    source: str


class ThresholdView(msgspec.Struct, frozen=True):
    """Where a percentile begins, since when, and of how many users."""

    name: str
    value: float
    share: float
    users: int
    since_ms: int


def wishes(profile: Profile, catalog: Catalog) -> tuple[WishView, ...]:
    """What the user wants, the newest first."""
    state = profile.browsing
    if state is None or not state.wishes:
        return ()
    known = {number: item for item in catalog.items.values() if (number := item_hash(item.id)) in state.wishes}
    found = []
    for number, wish in sorted(state.wishes.items(), key=lambda entry: (-entry[1].at_ms, entry[0])):
        item = known.get(number)
        found.append(
            WishView(
                item=item.id if item is not None else "",
                name=item.name if item is not None else "",
                kinds=tuple(kind for kind, bit in KINDS.items() if wish.kinds & bit),
                at_ms=wish.at_ms,
                price=wish.price_milli / 1000 if wish.price_milli else None,
                price_now=item.price if item is not None else None,
                in_stock=item.in_stock if item is not None else None,
                told=wish.told,
            )
        )
    return tuple(found)


def products(
    profile: Profile, campaign: Campaign, table: ItemTable, now_ms: int, properties: Mapping[str, Any] | None = None
) -> tuple[ProductView, ...]:
    """What the campaign's slot would show now, for an event that speaks of no product."""
    if campaign.recommend is None:
        return ()
    shown = slot(profile, campaign.recommend, table, properties or {}, now_ms)
    return tuple(ProductView(item.id, item.name, item.category, source) for item, source in shown)


def thresholds(percentiles: Mapping[str, Percentiles]) -> tuple[ThresholdView, ...]:
    """Every threshold in force."""
    return tuple(
        ThresholdView(f"{cut.name} of {number}", cut.value, cut.share, record.users, record.at_ms)
        for number, record in sorted(percentiles.items())
        for cut in record.cuts
    )
