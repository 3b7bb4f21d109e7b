"""The recommendation slot: a few products for a template, from what the user did and what everybody bought.

Made when a message is rendered, from the row and an immutable table that the learner publishes; so nothing is paid for
candidates that lose. The sources are asked in the policy's order until there are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from app.core.browsing import Browsing, Item, purchases_of, views_of
from app.core.campaign import Recommend
from app.core.ids import stable_id
from app.core.item_table import ItemTable
from app.core.items import item_of
from app.core.profile import Profile

SEEDS_MAX: Final = 48
HERE_WEIGHT: Final = 4.0
"""Of the product that the message is about, beside 1 of each that the user bought or viewed."""


def recommend(
    profile: Profile, wish: Recommend, table: ItemTable, properties: Mapping[str, Any], now_ms: int
) -> list[Item]:
    """The products of `slot`, without where they are from."""
    return [item for item, _ in slot(profile, wish, table, properties, now_ms)]


def slot(
    profile: Profile, wish: Recommend, table: ItemTable, properties: Mapping[str, Any], now_ms: int
) -> list[tuple[Item, str]]:
    """At most `wish.count` products, best first, each with its source: ``viewed``, ``also_bought``, ``popular``, or
    ``popular in`` a segment or a category.

    Never one product twice, nor more than `wish.per_category` of a category (those without one are not counted), nor
    what `properties` speaks of itself; nor, if the policy says so, what was bought within `wish.window_ms`.

    Parameters
    ----------
    properties
        Of the event that the message is about.
    """
    state = profile.browsing or Browsing()
    here = item_of(dict(properties))
    taken = set() if here is None else {here.id}
    since_ms = now_ms - wish.window_ms
    bought = (
        {product for product, at_ms in purchases_of(state).items() if at_ms > since_ms}
        if wish.exclude_bought
        else set()
    )
    in_category: dict[str, int] = {}
    found: list[tuple[Item, str]] = []
    for item, source in _candidates(profile, state, here, wish, table):
        if item.id in taken or stable_id(item.id) in bought:
            continue
        if item.category:
            if in_category.get(item.category, 0) >= wish.per_category:
                continue
            in_category[item.category] = in_category.get(item.category, 0) + 1
        taken.add(item.id)
        found.append((item, source))
        if len(found) == wish.count:
            break
    return found


def _candidates(
    profile: Profile, state: Browsing, here: Item | None, wish: Recommend, table: ItemTable
) -> Iterator[tuple[Item, str]]:
    for kind in wish.kinds:
        if kind == "popular":
            yield from _popular(profile, wish, table)
        elif kind == "viewed":
            yield from ((viewed.item, kind) for viewed in reversed(views_of(state)))
        else:
            yield from ((item, kind) for item in _also_bought(state, here, table))


def _popular(profile: Profile, wish: Recommend, table: ItemTable) -> Iterator[tuple[Item, str]]:
    """The best sellers of the segment, if the slot names one that the user is in; then of the user's categories, those
    of most interest first; then those of all.
    """
    for name in wish.segments:
        if stable_id(name) in profile.segments:
            yield from ((item, f"popular in {name}") for item in table.by_segment.get(name, ()))
            break
    for category in sorted(profile.affinity, key=lambda name: (-profile.affinity[name], name)):
        yield from ((item, f"popular in {category}") for item in table.popular.get(category, ()))
    yield from ((item, "popular") for item in table.top)


def _also_bought(state: Browsing, here: Item | None, table: ItemTable) -> list[Item]:
    """What goes with the product at hand, and with those bought and viewed last: the more of them, the better.

    What is little known of a product is made up for by what everybody buys.
    """
    times = purchases_of(state) | {stable_id(viewed.item.id): viewed.at_ms for viewed in views_of(state)}
    seeds = sorted(times, key=lambda product: (-times[product], product))[:SEEDS_MAX]
    weights = dict.fromkeys(seeds, 1.0)
    if here is not None:
        weights[stable_id(here.id)] = HERE_WEIGHT
    scores: dict[int, float] = {}
    unknown = 0.0
    for seed, weight in weights.items():
        unknown += weight * table.thin.get(seed, 1.0)
        for place, together in table.beside(seed):
            scores[place] = scores.get(place, 0.0) + weight * together
    for place, usual in table.usual if unknown else ():
        scores[place] = scores.get(place, 0.0) + unknown * usual
    items = table.items
    return [items[place] for place in sorted(scores, key=lambda place: (-scores[place], items[place].id))]


def as_context(items: Iterable[Item]) -> list[dict[str, str]]:
    """The products as a template reads them."""
    return [{"id": item.id, "category": item.category, "name": item.name} for item in items]
