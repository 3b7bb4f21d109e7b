"""The single writer of what everybody buys: best sellers, and what is bought together, from baskets.

Why not a recommender of River's: its factorisations (`reco.BiasedMF`) learn ratings of users whom they remember one by
one, without a bound, and a worker would need River to ask them. Counts of pairs are bounded and need no user
(Linden et al. 2003).

Bounded as heavy hitters are (Space-Saving): beyond `ITEMS_MAX` a new product takes the place, and the count, of the
least. All counts halve in `HALF_LIFE_MS` of event time. Of a user a basket says only which of 10,000 hash buckets they
are in, and of these three are kept for each product: it is shown to others only when it was bought from three, so that
nobody puts a text into other people's notifications alone.

References
----------
Metwally, Agrawal, El Abbadi, 2005: Efficient Computation of Frequent and Top-k Elements in Data Streams.
Linden, Smith, York, 2003: Amazon.com Recommendations: Item-to-Item Collaborative Filtering.
"""

from __future__ import annotations

import heapq
import math
from typing import Final

import msgspec

from app.core.items import BASKET_MAX, ID_CHARS_MAX, NAME_CHARS_MAX
from app.core.values import NAME_CHARS_MAX as CATEGORY_CHARS_MAX
from app.learning.contract import BadModel
from app.learning.recent import RecentIds
from app.learning.served_items import SUFFIX, USERS_MIN, ItemCount, ItemsState
from schemas.models import ModelSnapshot
from schemas.outcomes import Outcome

ITEMS_MAX: Final = 500
"""A snapshot of so many, with the longest names, stays below the megabyte that Kafka takes."""
NEAR_MAX: Final = 16
"""Products that are remembered beside each."""
HALF_LIFE_MS: Final = 14 * 86_400_000
RECENT_MAX: Final = 2048


class ItemLearner:
    """What is bought, and together, of one model's policy.

    Parameters
    ----------
    name
        The model's name; the snapshot's is that and `SUFFIX`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.baskets = 0
        self.at_ms = 0
        self._items: dict[str, ItemCount] = {}
        self._worths: dict[str, float] = {}
        self._least: list[tuple[float, str]] = []
        """A heap of worths, some of them out of date: what `_worths` does not say any more is passed by."""
        self._recent = RecentIds(RECENT_MAX)

    def learn(self, outcome: Outcome) -> bool:
        """Count a basket. False when it was counted before, or has no product."""
        products = {}
        for entry in outcome.items[:BASKET_MAX]:
            product, category, name = (*entry, "", "", "")[:3]
            if 0 < len(product) <= ID_CHARS_MAX:
                products[product] = (category[:CATEGORY_CHARS_MAX], name[:NAME_CHARS_MAX])
        if not products or not self._recent.add(outcome.id):
            return False
        self.baskets += 1
        self.at_ms = max(self.at_ms, outcome.decided_ms)
        user = int(outcome.features.get("bucket", -1.0))
        counts = [self._count(product, *said, user) for product, said in products.items()]
        for count in counts:
            for other in products:
                if other != count.id:
                    _add(count.near, other, NEAR_MAX)
        return True

    def _count(self, product: str, category: str, name: str, user: int) -> ItemCount:
        count = self._items.get(product)
        if count is None:
            inherited = self._make_room()
            count = self._items[product] = ItemCount(product, at_ms=self.at_ms, count=inherited)
        self._decay(count)
        count.count += 1.0
        self._value(count)
        count.category, count.name = category or count.category, name or count.name
        if user not in count.users and len(count.users) < USERS_MIN:
            count.users.append(user)
        return count

    def _make_room(self) -> float:
        """Forget the least product if there are too many. Returns the count that its successor inherits."""
        if len(self._items) < ITEMS_MAX:
            return 0.0
        if len(self._least) > 4 * ITEMS_MAX:
            self._rank()
        while True:
            worth, product = heapq.heappop(self._least)
            if self._worths.get(product) == worth:
                break
        least = self._items.pop(product)
        del self._worths[product]
        self._decay(least)
        return least.count

    def _value(self, count: ItemCount) -> None:
        """Note what a product is worth beside the others: all decay alike, so it changes only with its count."""
        worth = math.log2(max(count.count, 1e-300)) + count.at_ms / HALF_LIFE_MS
        self._worths[count.id] = worth
        heapq.heappush(self._least, (worth, count.id))

    def _rank(self) -> None:
        self._worths, self._least = {}, []
        for count in self._items.values():
            self._value(count)

    def _decay(self, count: ItemCount) -> None:
        """Bring a product's counts to the newest event time."""
        if count.at_ms < self.at_ms:
            factor = 0.5 ** min((self.at_ms - count.at_ms) / HALF_LIFE_MS, 1000.0)
            count.count *= factor
            count.near = {other: number * factor for other, number in count.near.items()}
            count.at_ms = self.at_ms

    def snapshot(self, next_offset: int, now_ms: int, partition: int) -> ModelSnapshot:
        """The whole state, unsigned; arguments as of `Learner.snapshot`."""
        for count in self._items.values():
            self._decay(count)
            count.near = {other: number for other, number in count.near.items() if other in self._items}
        self._rank()  # as one that is restored from this does
        state = ItemsState(
            baskets=self.baskets,
            at_ms=self.at_ms,
            items=ItemsState.packed(self._items.values()),
            recent=self._recent.to_bytes(),
        )
        return ModelSnapshot(
            model=self.name + SUFFIX,
            version=self.baskets,
            partition=partition,
            next_offset=next_offset,
            created_ms=now_ms,
            state=msgspec.json.encode(state),
            metrics={"baskets": float(self.baskets), "items": float(len(self._items))},
        )

    @classmethod
    def restore(cls, snapshot: ModelSnapshot) -> ItemLearner:
        """The learner that took this snapshot. Raises `BadModel`."""
        state = ItemsState.read(snapshot)
        learner = cls(snapshot.model.removesuffix(SUFFIX))
        learner.baskets, learner.at_ms = state.baskets, state.at_ms
        learner._items = {count.id: count for count in state.unpacked()}
        learner._rank()
        try:
            learner._recent = RecentIds.from_bytes(state.recent, RECENT_MAX)
        except ValueError as exc:
            raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
        return learner


def _add(counts: dict[str, float], key: str, size_max: int) -> None:
    """Count one more, by Space-Saving."""
    inherited = 0.0
    if key not in counts and len(counts) >= size_max:
        least = min(counts, key=lambda other: (counts[other], other))
        inherited = counts.pop(least)
    counts[key] = counts.get(key, inherited) + 1.0
