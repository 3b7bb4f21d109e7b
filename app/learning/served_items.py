"""The state of a snapshot of items, and what a worker reads of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from app.core.browsing import Item
from app.core.ids import stable_id
from app.core.item_table import ItemTable
from app.learning.contract import BadModel
from schemas.models import ModelSnapshot

SUFFIX: Final = ".items"
"""Of the key under which a model's snapshot of items stands on the `models` topic."""
VERSION: Final = 1
USERS_MIN: Final = 3
"""A product is recommended when so many users (hash buckets of them) bought it."""
TOGETHER_MIN: Final = 1.5
"""And beside another, when they were bought together more than once, lately."""
POPULAR_MAX: Final = 10
TOP_MAX: Final = 50
SERVED_NEAR_MAX: Final = 8


class ItemCount(msgspec.Struct):
    """A product: its count and those of what is bought with it, at `at_ms`, and buckets of users who bought it."""

    id: str
    category: str = ""
    name: str = ""
    count: float = 0.0
    at_ms: int = 0
    users: list[int] = []
    near: dict[str, float] = {}


class _Packed(msgspec.Struct, array_like=True):
    """`near` is flat: place of the other product in the list, count, and so on."""

    id: str
    category: str
    name: str
    count: float
    users: list[int]
    near: list[float]


class ItemsState(msgspec.Struct, kw_only=True):
    """A snapshot's state; all counts are as of `at_ms`."""

    version: int = VERSION
    baskets: int = 0
    at_ms: int = 0
    items: list[_Packed] = []
    recent: bytes = b""

    @staticmethod
    def packed(counts: Iterable[ItemCount]) -> list[_Packed]:
        """Products as a snapshot holds them: `near` names only products of the list."""
        counts = list(counts)
        place = {count.id: at for at, count in enumerate(counts)}
        return [
            _Packed(
                count.id,
                count.category,
                count.name,
                count.count,
                count.users,
                [number for other, near in count.near.items() for number in (float(place[other]), near)],
            )
            for count in counts
        ]

    def unpacked(self) -> list[ItemCount]:
        """The products again."""
        names = [item.id for item in self.items]
        return [
            ItemCount(
                id=item.id,
                category=item.category,
                name=item.name,
                count=item.count,
                at_ms=self.at_ms,
                users=item.users,
                near={names[int(at)]: near for at, near in zip(item.near[::2], item.near[1::2], strict=True)},
            )
            for item in self.items
        ]

    @classmethod
    def read(cls, snapshot: ModelSnapshot) -> ItemsState:
        """The state of a snapshot. Raises `BadModel`."""
        try:
            state = msgspec.json.decode(snapshot.state, type=cls)
        except msgspec.MsgspecError as exc:
            raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
        if state.version != VERSION:
            raise BadModel(f"snapshot {snapshot.model!r}: state {state.version}; this build reads {VERSION}")
        size = len(state.items)
        if any(len(item.near) % 2 or not all(0 <= at < size for at in item.near[::2]) for item in state.items):
            raise BadModel(f"snapshot {snapshot.model!r}: a product beside another that is not there")
        return state


def read_items(snapshot: ModelSnapshot) -> ItemTable:
    """The table of a snapshot: only products that enough users bought. Raises `BadModel`."""
    counts = ItemsState.read(snapshot).unpacked()
    shown = {count.id: count for count in counts if len(count.users) >= USERS_MIN}
    items = {name: Item(name, count.category, count.name) for name, count in shown.items()}
    best = sorted(shown.values(), key=lambda count: (-count.count, count.id))
    popular: dict[str, list[Item]] = {}
    for count in best:
        listed = popular.setdefault(count.category, [])
        if count.category and len(listed) < POPULAR_MAX:
            listed.append(items[count.id])
    near = {stable_id(count.id): _near(count, shown, items) for count in counts}
    return ItemTable(
        version=snapshot.version,
        top=tuple(items[count.id] for count in best[:TOP_MAX]),
        popular={category: tuple(listed) for category, listed in popular.items() if listed},
        near={seed: found for seed, found in near.items() if found},
    )


def _near(count: ItemCount, shown: dict[str, ItemCount], items: dict[str, Item]) -> tuple[tuple[Item, float], ...]:
    """By cosine: a product that is in every basket goes with none in particular."""
    cosines = {
        other: min(together / math.sqrt(max(count.count * shown[other].count, 1e-12)), 1.0)
        for other, together in count.near.items()
        if other in shown and together >= TOGETHER_MIN
    }
    best = sorted(cosines, key=lambda other: (-cosines[other], other))[:SERVED_NEAR_MAX]
    return tuple((items[other], cosines[other]) for other in best)
