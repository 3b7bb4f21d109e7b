"""The single writer of what everybody buys: best sellers, of all and by segment, and what is bought together.

Learned from baskets alone: of a user a basket says in which of 10,000 hash buckets they are, and in which segments that
a policy asks for. Bounded: `ITEMS_MAX` products, and a number for each pair of them.

- **Which products.** Those bought most lately. One more takes the place of the least when it was bought more often, as
  a count-min sketch of all that have no place says (TinyLFU): the long tail, which is most of a shop, moves nobody.
- **Best sellers.** Counts that halve in `SHORT_MS`; for a segment, times the shrunk lift of the product in it.
- **Bought together.** P(other | product), shrunk to P(other), from counts that halve in `LONG_MS`, by the trend of the
  other (how much of its sales is recent) and against its popularity by the power `DAMPING`: without it everything goes
  with the best seller, with the cosine (power 1/2) nothing rises above the tail.

Why no factorisation: item vectors learned from the same baskets hit no more often, at the price of thousands of
multiplications a message (benchmarks/results-recommend.md). River's (`reco.BiasedMF`) learns ratings of
users whom it remembers one by one, without a bound.

A product is shown to others only when it was bought from three buckets, so that nobody puts a text into other people's
notifications alone.

References
----------
Einziger, Friedman, Manes, 2017: TinyLFU: A Highly Efficient Cache Admission Policy.
Cormode, Shkapenyuk, Srivastava, Xu, 2009: Forward Decay: A Practical Time Decay Model for Streaming Systems.
Linden, Smith, York, 2003: Amazon.com Recommendations: Item-to-Item Collaborative Filtering.
DuMouchel, 1999: Bayesian Data Mining in Large Frequency Tables (the shrunk lift).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from app.core.ids import message_hash
from app.core.items import BASKET_MAX, ID_CHARS_MAX, NAME_CHARS_MAX, SEGMENTS_MAX
from app.core.values import NAME_CHARS_MAX as CATEGORY_CHARS_MAX
from app.learning.buckets import bucket_of
from app.learning.contract import BadModel
from app.learning.recent import RecentIds
from app.learning.served_items import (
    NEAR_MAX,
    POPULAR_MAX,
    SUFFIX,
    TOP_MAX,
    USERS_MIN,
    VERSION,
    ItemBooks,
    ItemsState,
    KnownItem,
    ServedItems,
    read_version_1,
)
from schemas.models import ModelSnapshot
from schemas.outcomes import Outcome

ITEMS_MAX: Final = 500
"""A snapshot of so many, with the longest names, stays below the megabyte that Kafka takes."""
TEXT_BYTES_MAX: Final = 120
"""Of a category or a name, for the same reason."""
SHORT_MS: Final = 14 * 86_400_000
LONG_MS: Final = 60 * 86_400_000
TREND_MAX: Final = 5.0
DAMPING: Final = 0.25
SEED_PRIOR: Final = 20.0
"""P(other | product) is shrunk to P(other) as if the product had been bought so often more, like any."""
TOGETHER_MIN: Final = 1.5
"""Products are shown beside each other when they were bought together more than once, lately."""
LIFT_PRIOR: Final = 10.0
"""Purchases of a product, expected in a segment, at which its lift counts for half."""
RECENT_MAX: Final = 2048
SKETCH_ROWS: Final = 4
SKETCH_BITS: Final = 12
PAIR_MAX: Final = 60_000.0

Floats = npt.NDArray[np.float64]
_HALF: Final = np.dtype("<f2")
_BESIDE: Final = np.dtype([("place", "<u2"), ("weight", "<f2")])
"""As `app.core.item_table.BESIDE`."""


class _Decay:
    """Forward decay: what is counted now weighs more than before, in [1, 2); all is halved when a half-life passes."""

    def __init__(self, half_life_ms: int) -> None:
        self.half_life_ms = half_life_ms
        self.since_ms = 0

    def halvings(self, at_ms: int) -> int:
        """By how many powers of two everything that was counted must shrink first."""
        if not self.since_ms:
            self.since_ms = at_ms
        number = max(at_ms - self.since_ms, 0) // self.half_life_ms
        self.since_ms += number * self.half_life_ms
        return number

    def weight(self, at_ms: int) -> float:
        """Of one more."""
        return float(2.0 ** (max(at_ms - self.since_ms, 0) / self.half_life_ms))


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
        self._items: list[KnownItem] = []
        self._places: dict[str, int] = {}
        self._short_decay, self._long_decay = _Decay(SHORT_MS), _Decay(LONG_MS)
        self._short: Floats = np.zeros(ITEMS_MAX)
        self._long: Floats = np.zeros(ITEMS_MAX)
        self._pairs = np.zeros((ITEMS_MAX, ITEMS_MAX), _HALF)
        """Above the diagonal: how often two products were bought together."""
        self._segments: dict[str, npt.NDArray[np.float32]] = {}
        self._sketch = np.zeros((SKETCH_ROWS, 1 << SKETCH_BITS), _HALF)
        self._recent = RecentIds(RECENT_MAX)

    def learn(self, outcome: Outcome) -> bool:
        """Count a basket. False when it was counted before, or has no product."""
        products = {}
        for entry in outcome.items[:BASKET_MAX]:
            product, category, name = (*entry, "", "", "")[:3]
            if 0 < len(product) <= ID_CHARS_MAX:
                products[product] = (_cut(category[:CATEGORY_CHARS_MAX]), _cut(name[:NAME_CHARS_MAX]))
        if not products or not self._recent.add(outcome.id):
            return False
        self.baskets += 1
        self.at_ms = max(self.at_ms, outcome.decided_ms)
        self._age()
        user = bucket_of(outcome.features)
        for product, said in products.items():
            self._enter(product, *said, user)
        places = sorted(self._places[product] for product in products if product in self._places)
        if not places:
            return True
        weight = self._long_decay.weight(self.at_ms)
        at = np.array(places)
        self._short[at] += self._short_decay.weight(self.at_ms)
        self._long[at] += weight
        self._pair(at, weight)
        for segment in outcome.segments[:SEGMENTS_MAX]:
            self._segment(segment)[at] += np.float32(weight)
        return True

    def _age(self) -> None:
        if halvings := self._short_decay.halvings(self.at_ms):
            factor = 0.5 ** min(halvings, 1000)
            self._short *= factor
            self._sketch *= _HALF.type(factor)
        if halvings := self._long_decay.halvings(self.at_ms):
            factor = 0.5 ** min(halvings, 1000)
            self._long *= factor
            self._pairs *= _HALF.type(factor)
            self._segments = {name: counts * np.float32(factor) for name, counts in self._segments.items()}

    def _enter(self, product: str, category: str, name: str, user: int) -> None:
        """Give a product its place, if it has or deserves one."""
        place = self._places.get(product)
        if place is None:
            place = len(self._items)
            known = KnownItem(product)
            if place < ITEMS_MAX:
                self._items.append(known)
            else:
                place = int(np.argmin(self._short))
                seen = self._estimate(product, self._short_decay.weight(self.at_ms))
                if seen <= self._short[place]:
                    return
                self._estimate(self._items[place].id, 0.0, at_least=float(self._short[place]))
                del self._places[self._items[place].id]
                self._items[place] = known
                before = seen - self._short_decay.weight(self.at_ms)
                self._short[place] = self._long[place] = max(before, 0.0)
                self._pairs[place, :] = 0
                self._pairs[:, place] = 0
                for counts in self._segments.values():
                    counts[place] = 0
            self._places[product] = place
        known = self._items[place]
        known.category, known.name = category or known.category, name or known.name
        if user not in known.users and len(known.users) < USERS_MIN:
            known.users.append(user)

    def _estimate(self, product: str, more: float, at_least: float = 0.0) -> float:
        """How often a product without a place was bought lately, counting `more` now (conservative update)."""
        number = message_hash(product)
        cells = [(number >> SKETCH_BITS * row) % (1 << SKETCH_BITS) for row in range(SKETCH_ROWS)]
        counts = [float(self._sketch[row, cell]) for row, cell in enumerate(cells)]
        new = min(max(min(counts) + more, at_least), PAIR_MAX)
        for row, cell in enumerate(cells):
            if counts[row] < new:
                self._sketch[row, cell] = new
        return new

    def _pair(self, at: npt.NDArray[Any], weight: float) -> None:
        """Count each two products once more. Rounded by dice, so that a large count rises by the right amount."""
        first, second = np.triu_indices(len(at), 1)
        rows, columns = at[first], at[second]
        old = self._pairs[rows, columns]
        dice = (np.arange(len(old), dtype=np.uint64) + np.uint64(self.baskets * 256 % 2**63)) * _ODD >> np.uint64(40)
        spread = np.spacing(old).astype(np.float32) * (dice.astype(np.float32) / 2**24 - 0.5)
        new = old.astype(np.float32) + np.float32(weight) + spread
        self._pairs[rows, columns] = np.minimum(new, PAIR_MAX).astype(_HALF)

    def _segment(self, name: str) -> npt.NDArray[np.float32]:
        counts = self._segments.get(name)
        if counts is None:
            if len(self._segments) >= SEGMENTS_MAX:
                del self._segments[min(self._segments, key=lambda other: float(self._segments[other].sum()))]
            counts = self._segments[name] = np.zeros(ITEMS_MAX, np.float32)
        return counts

    # -- what is served

    def _serve(self) -> ServedItems:
        size = len(self._items)
        shown = np.array([len(known.users) >= USERS_MIN for known in self._items], bool)
        short, long = self._short[:size], self._long[:size]
        best = _best(np.where(shown, short, 0.0), size)
        popular: dict[str, list[int]] = {}
        for place in best:
            if category := self._items[place].category:
                listed = popular.setdefault(category, [])
                if len(listed) < POPULAR_MAX:
                    listed.append(place)
        near, usual, thin = self._near(shown, short, long)
        return ServedItems(
            top=best[:TOP_MAX],
            popular=popular,
            near=near,
            usual=usual,
            thin=thin,
            by_segment={
                name: _best(np.where(shown, short * self._lift(counts[:size], long), 0.0), TOP_MAX)
                for name, counts in self._segments.items()
            },
        )

    def _lift(self, counts: npt.NDArray[np.float32], long: Floats) -> Floats:
        """How much more often than elsewhere a product is bought in a segment, shrunk to 1."""
        expected = counts.sum() * long / max(float(long.sum()), 1e-12)
        return (counts + LIFT_PRIOR) / (expected + LIFT_PRIOR)  # type: ignore[no-any-return]

    def _near(
        self, shown: npt.NDArray[np.bool_], short: Floats, long: Floats
    ) -> tuple[list[bytes], list[tuple[int, float]], list[float]]:
        """`near`, `usual` and `thin` of what is served."""
        size = len(self._items)
        if not size:
            return [], [], []
        upper = self._pairs[:size, :size].astype(np.float32)
        pairs = upper + upper.T
        scale = self._long_decay.weight(self.at_ms)
        recent, usual = short / max(float(short.sum()), 1e-12), long / max(float(long.sum()), 1e-12)
        trend = np.minimum(recent / np.maximum(usual, 1e-12), TREND_MAX)
        worth = np.where(shown, trend / (long / scale + 1.0) ** DAMPING, 0.0).astype(np.float32)
        weights = pairs * worth
        weights[pairs < TOGETHER_MIN * scale] = 0.0
        kept = min(NEAR_MAX, size)
        best = np.argpartition(-weights, kept - 1, axis=1)[:, :kept]
        best.sort(axis=1)  # of two alike the earlier
        found = np.take_along_axis(weights, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        packed = np.empty((size, kept), _BESIDE)
        packed["place"] = np.take_along_axis(best, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
        packed["weight"] = found / ((long / scale + SEED_PRIOR) * scale)[:, None]
        counts = (found > 0).sum(axis=1)
        near = [row[:count].tobytes() for row, count in zip(packed, counts, strict=True)]
        base = usual * worth
        thin = SEED_PRIOR / (long / scale + SEED_PRIOR)
        return near, [(place, float(base[place])) for place in _best(base, TOP_MAX)], thin.tolist()

    # -- snapshots

    def snapshot(self, next_offset: int, now_ms: int, partition: int) -> ModelSnapshot:
        """The whole state, unsigned; arguments as of `Learner.snapshot`."""
        size = len(self._items)
        books = ItemBooks(
            since_short_ms=self._short_decay.since_ms,
            since_long_ms=self._long_decay.since_ms,
            short=self._short[:size].astype("<f8").tobytes(),
            long=self._long[:size].astype("<f8").tobytes(),
            pairs=self._pairs[np.triu_indices(size, 1)].tobytes(),
            segments={name: counts[:size].astype("<f4").tobytes() for name, counts in self._segments.items()},
            sketch=self._sketch.tobytes() if size == ITEMS_MAX else b"",
            recent=self._recent.to_bytes(),
        )
        state = ItemsState(VERSION, self.baskets, self.at_ms, self._items, self._serve(), books)
        return ModelSnapshot(
            model=self.name + SUFFIX,
            version=self.baskets,
            partition=partition,
            next_offset=next_offset,
            created_ms=now_ms,
            state=msgspec.msgpack.encode(state),
            metrics={"baskets": float(self.baskets), "items": float(size)},
        )

    @classmethod
    def restore(cls, snapshot: ModelSnapshot) -> ItemLearner:
        """The learner that took this snapshot. Raises `BadModel`."""
        learner = cls(snapshot.model.removesuffix(SUFFIX))
        try:
            if snapshot.state[:1] == b"{":
                learner._resume_version_1(snapshot)
            else:
                learner._resume(ItemsState.read(snapshot))
        except ValueError as exc:
            raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
        return learner

    def _resume(self, state: ItemsState) -> None:
        books, size = state.books, len(state.items)
        if size > ITEMS_MAX or len(books.segments) > SEGMENTS_MAX:
            raise ValueError(f"{size} products, {len(books.segments)} segments")
        self.baskets, self.at_ms = state.baskets, state.at_ms
        self._items = state.items
        self._places = {known.id: place for place, known in enumerate(state.items)}
        self._short_decay.since_ms, self._long_decay.since_ms = books.since_short_ms, books.since_long_ms
        self._short[:size] = _numbers(books.short, "<f8", size)
        self._long[:size] = _numbers(books.long, "<f8", size)
        self._pairs[np.triu_indices(size, 1)] = _numbers(books.pairs, "<f2", size * (size - 1) // 2)
        for name, raw in books.segments.items():
            self._segments[name] = np.zeros(ITEMS_MAX, np.float32)
            self._segments[name][:size] = _numbers(raw, "<f4", size)
        if books.sketch:
            self._sketch[:] = _numbers(books.sketch, "<f2", self._sketch.size).reshape(self._sketch.shape)
        self._recent = RecentIds.from_bytes(books.recent, RECENT_MAX)

    def _resume_version_1(self, snapshot: ModelSnapshot) -> None:
        old = read_version_1(snapshot)
        self.baskets, self.at_ms = old.baskets, old.at_ms
        self._age()
        for place, known in enumerate(old.items[:ITEMS_MAX]):
            self._items.append(KnownItem(known.id, _cut(known.category), _cut(known.name), known.users))
            self._places[known.id] = place
            self._short[place] = self._long[place] = known.count
            for other, together in zip(known.near[::2], known.near[1::2], strict=True):
                low, high = sorted((place, int(other)))
                if 0 <= low < high < ITEMS_MAX:
                    self._pairs[low, high] = max(self._pairs[low, high], min(together, PAIR_MAX))
        self._recent = RecentIds.from_bytes(old.recent, RECENT_MAX)


_ODD: Final = np.uint64(0x9E3779B97F4A7C15)


def _cut(text: str) -> str:
    raw = text.encode()
    return text if len(raw) <= TEXT_BYTES_MAX else raw[:TEXT_BYTES_MAX].decode(errors="ignore")


def _numbers(raw: bytes, kind: str, size: int) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = np.frombuffer(raw, kind)
    if len(found) != size or not np.isfinite(found).all():
        raise ValueError(f"{len(found)} numbers where {size} are due, or some are not finite")
    return found


def _best(worth: Floats, count: int) -> list[int]:
    """Places of the greatest above 0, best first; of two alike the earlier."""
    order = np.argsort(-worth, kind="stable")[:count]
    return [int(place) for place in order if worth[place] > 0]
