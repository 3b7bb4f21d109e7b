"""Changes of the catalog offered to a user: which campaigns have something to say about them.

Two kinds of interest. A *wish* is for the item itself; each change of an item is offered to a row once (`Wish.told`).
An *affinity* is for its category; a campaign then speaks of the best of the changes of one round, and the row notes up
to which version it has been told (`Browsing.told_affine`). Both notes are in the row that holds the decision, so
neither a kill nor another owner of the partition tells anybody twice; and the decision's id is made of user, campaign,
item and version.

Who looked at the item after the change has seen it; who bought it has it; what is not so any more is not said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from app.core import arbiter, owed
from app.core.batch import Batch
from app.core.browsing import Browsing
from app.core.campaign import Campaign, ItemTrigger
from app.core.catalog import Change, facts, has_bought
from app.core.interest import worth
from app.core.items import state_of
from app.core.plan import Plan
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_heads import BadRow
from app.core.triggers import Candidate
from app.core.values import milli
from schemas.catalog import CatalogItem

if TYPE_CHECKING:
    from app.core.run import Run


class Offer(msgspec.Struct, frozen=True):
    """What is offered to one row.

    Parameters
    ----------
    wished
        Changes of items that the row's user may have a wish for, by version.
    affine
        Changes of items of which the category may interest the user.
    affine_end
        The newest version of the round that `affine` is of.
    """

    wished: Sequence[Change] = ()
    affine: Sequence[Change] = ()
    affine_end: int = -1


def item_triggers(plan: Plan) -> tuple[ItemTrigger, ...]:
    """The triggers of a policy that speak of the catalog."""
    return tuple(campaign.trigger.item for campaign in plan.campaigns if campaign.trigger.item is not None)


def likes_categories(triggers: Iterable[ItemTrigger]) -> bool:
    """Whether one of them speaks to those who only like an item's category."""
    return any(trigger.affinity for trigger in triggers)


def for_wishes(changes: Iterable[Change], keys_of: Callable[[int], Iterable[bytes]]) -> dict[bytes, Offer]:
    """What to offer to whom wants the items themselves: `keys_of` gives the rows that may want an item."""
    by_key: dict[bytes, list[Change]] = {}
    for change in changes:
        for key in keys_of(change.id):
            by_key.setdefault(key, []).append(change)
    return {key: Offer(wished=wanted) for key, wanted in by_key.items()}


class Round:
    """Changes that are offered together to those who like a category; who likes several hears of the best of them."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.end = changes[-1].offset if changes else -1
        self._by_category: dict[str, list[Change]] = {}
        for change in changes:
            if change.item.category:
                self._by_category.setdefault(change.item.category, []).append(change)

    def __bool__(self) -> bool:
        """Whether a row may be concerned at all."""
        return bool(self._by_category)

    def of(self, profile: Profile) -> Offer | None:
        """What concerns a row."""
        liked = [change for name in profile.affinity for change in self._by_category.get(name, ())]
        return Offer(affine=liked, affine_end=self.end) if liked else None


def candidates(batch: Batch, profile: Profile, offer: Offer) -> list[Candidate]:
    """The campaigns that follow from an offer; the row notes of which versions it has been told."""
    found = _for_wishes(batch, profile, offer.wished) if profile.browsing is not None else []
    return found + (_for_affinity(batch, profile, offer) if offer.affine else [])


def _for_wishes(batch: Batch, profile: Profile, changes: Iterable[Change]) -> list[Candidate]:
    state = profile.browsing
    assert state is not None, "the caller has looked"
    found: list[Candidate] = []
    for change in changes:
        wish = state.wishes.get(change.id)
        if wish is None or wish.told >= change.offset or wish.at_ms >= change.at_ms:
            continue
        item = _as_now(batch, state, change)
        if item is None:
            continue
        before = wish.price_milli / 1000 if wish.price_milli else change.before.price
        told = facts(item, before)
        made = [
            _candidate(campaign, change, told)
            for campaign, trigger in _campaigns(batch, change)
            if trigger.interest & wish.kinds
            and wish.at_ms > batch.now_ms - trigger.within_ms
            and _speaks(campaign, trigger, change, before, told)
        ]
        if made:
            found += made
            wish.told, wish.price_milli = change.offset, milli(item.price) or 0
    return found


def _for_affinity(batch: Batch, profile: Profile, offer: Offer) -> list[Candidate]:
    state = profile.browsing or Browsing()
    if state.told_affine >= offer.affine_end:
        return []
    best: dict[str, tuple[float, Candidate, Change]] = {}
    for change in offer.affine:
        wish = state.wishes.get(change.id)
        if change.offset <= state.told_affine:
            continue
        if wish is not None and (wish.told >= change.offset or wish.at_ms >= change.at_ms):
            continue
        interest = affinity(profile, change.item.category, batch.now_ms)
        item = _as_now(batch, state, change) if interest else None
        if item is None:
            continue
        before = change.before.price
        told = facts(item, before)
        drop = 1 - item.price / before if before and item.price is not None else 0.0
        for campaign, trigger in _campaigns(batch, change):
            if 0 < trigger.affinity <= interest and _speaks(campaign, trigger, change, before, told):
                known = best.get(campaign.name)
                if known is None or drop > known[0]:
                    best[campaign.name] = (drop, _candidate(campaign, change, told), change)
    if best:
        state = state_of(profile)
        state.told_affine = offer.affine_end
        for _drop, _made, change in best.values():
            if (wish := state.wishes.get(change.id)) is not None:
                wish.told = change.offset
    return [made for _drop, made, _change in best.values()]


def affinity(profile: Profile, category: str, now_ms: int) -> float:
    """The user's interest in a category now: events of it, each worth a half after two weeks; 0 for none."""
    level = profile.affinity.get(category)
    return 0.0 if level is None or not category else worth(level, now_ms)


def _as_now(batch: Batch, state: Browsing, change: Change) -> CatalogItem | None:
    """The item as it is by now; None when it has become dearer, has gone again, or the user has bought it."""
    item = batch.catalog.get(change.item.id)
    if item is None or not item.in_stock or has_bought(state, item.id):
        return None
    if change.item.price is not None and (item.price is None or item.price > change.item.price):
        return None
    return item


def _campaigns(batch: Batch, change: Change) -> Iterable[tuple[Campaign, ItemTrigger]]:
    for campaign in batch.index.item_campaigns:
        trigger = campaign.trigger
        if trigger.item is not None and (trigger.kind == "price_drop" or change.restocked):
            yield campaign, trigger.item


def _speaks(
    campaign: Campaign,
    trigger: ItemTrigger,
    change: Change,
    before: float | None,
    told: Mapping[str, object],
) -> bool:
    where = campaign.trigger.where
    if where is not None and not where(told):
        return False
    if campaign.trigger.kind == "back_in_stock":
        return change.restocked
    price = change.item.price  # not what it has become since: that is a change of its own
    if price is None or before is None or price >= before or price < trigger.price_from:
        return False
    return before - price >= trigger.by * before * (1 - 1e-9)


def _candidate(campaign: Campaign, change: Change, told: Mapping[str, object]) -> Candidate:
    return Candidate(campaign, change.item.id, change.offset, change.at_ms, told, change.at_ms)


def offer_all(run: Run, offers: Mapping[bytes, Offer], mark: int) -> None:
    """Offer changes to rows and let the arbiter decide; a row that raises stays as it is."""
    batch = run.batch
    batch.mark, batch.source = mark, None
    for key, offer in offers.items():
        profile = run.rows.get(key)
        if profile is None or profile.erased_ms or profile.merged_into:
            continue
        batch.key, batch.user = key, key.decode()
        snapshot = encode_profile(profile)
        batch.untouched = True
        foreign = profile.policy != batch.index.policy_id
        try:
            if foreign:
                run.turn.adopt(profile)
            found = candidates(batch, profile, offer)
            if found:
                owed.trim(profile, run.acked_offset)
                arbiter.arbitrate(batch, profile, found, run.turn.scorer, run.turn.features_of)
        except BadRow:
            raise
        except Exception:
            batch.cut()
            batch.count("offers", "failed")
            run.rows[key] = decode_profile(snapshot)
            continue
        batch.count("offers", "made" if found else "none")
        if found or foreign:
            run.changed[key] = profile
