"""The state of a snapshot of items, and what a worker reads of it."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from app.core.browsing import Item
from app.core.ids import stable_id
from app.core.item_table import BESIDE, ItemTable
from app.learning.contract import BadModel
from schemas.models import ModelSnapshot

SUFFIX: Final = ".items"
"""Of the key under which a model's snapshot of items stands on the `models` topic."""
VERSION: Final = 2
"""Version 1 was JSON; a learner that resumes from one begins with the best sellers of it, see `app.learning.items`."""
USERS_MIN: Final = 3
"""A product is recommended when so many users (hash buckets of them) bought it."""
POPULAR_MAX: Final = 10
TOP_MAX: Final = 50
NEAR_MAX: Final = 32
"""Products that are served beside each."""


class KnownItem(msgspec.Struct, array_like=True):
    """A product, and buckets of users who bought it."""

    id: str
    category: str = ""
    name: str = ""
    users: list[int] = []


class ServedItems(msgspec.Struct, array_like=True):
    """What workers serve; products by place.

    Parameters
    ----------
    near
        By place, as of `ItemTable.near`; empty of a product that is not shown, too.
    thin
        By place, as of `ItemTable.thin`.
    """

    top: list[int] = []
    popular: dict[str, list[int]] = {}
    near: list[bytes] = []
    by_segment: dict[str, list[int]] = {}
    usual: list[tuple[int, float]] = []
    thin: list[float] = []


class ItemBooks(msgspec.Struct, array_like=True):
    """The learner's numbers, little-endian: float64 by product, float16 by pair, float32 by segment and product."""

    since_short_ms: int
    since_long_ms: int
    short: bytes
    long: bytes
    pairs: bytes
    segments: dict[str, bytes]
    sketch: bytes
    recent: bytes


class ItemsState(msgspec.Struct, array_like=True):
    """A snapshot's state, MessagePack."""

    version: int
    baskets: int
    at_ms: int
    items: list[KnownItem]
    served: ServedItems
    books: ItemBooks

    @classmethod
    def read(cls, snapshot: ModelSnapshot) -> ItemsState:
        """The state of a snapshot. Raises `BadModel`."""
        try:
            state = _decode(snapshot.state)
        except msgspec.MsgspecError as exc:
            raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
        if state.version != VERSION:
            raise BadModel(f"snapshot {snapshot.model!r}: state {state.version}; this build reads {VERSION}")
        size, served = len(state.items), state.served
        usual = [place for place, _weight in served.usual]
        listed = [served.top, *served.popular.values(), *served.by_segment.values(), usual]
        if any(not 0 <= place < size for places in listed for place in places):
            raise BadModel(f"snapshot {snapshot.model!r}: a best seller that is not there")
        near = b"".join(served.near)
        if max(len(served.near), len(served.thin)) > size or any(len(packed) % BESIDE.size for packed in served.near):
            raise BadModel(f"snapshot {snapshot.model!r}: torn neighbours")
        if max(struct.unpack(f"<{len(near) // 2}H", near)[::2], default=-1) >= size:
            raise BadModel(f"snapshot {snapshot.model!r}: a product beside another that is not there")
        return state


_decode = msgspec.msgpack.Decoder(ItemsState).decode


class ItemVersion1(msgspec.Struct, array_like=True):
    """A product in a state of version 1; `near` is flat: place of the other in the list, count, and so on."""

    id: str
    category: str
    name: str
    count: float
    users: list[int]
    near: list[float]


class ItemsVersion1(msgspec.Struct, kw_only=True):
    """A state of version 1, JSON."""

    version: int = 1
    baskets: int = 0
    at_ms: int = 0
    items: list[ItemVersion1] = []
    recent: bytes = b""


def read_version_1(snapshot: ModelSnapshot) -> ItemsVersion1:
    """What an earlier build left. Raises `BadModel`."""
    try:
        state = msgspec.json.decode(snapshot.state, type=ItemsVersion1)
    except msgspec.MsgspecError as exc:
        raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
    if state.version != 1:
        raise BadModel(f"snapshot {snapshot.model!r}: state {state.version}; this build reads {VERSION} and 1")
    return state


def read_items(snapshot: ModelSnapshot) -> ItemTable:
    """The table of a snapshot: only products that enough users bought. Raises `BadModel`."""
    state = ItemsState.read(snapshot)
    served = state.served
    items = tuple(Item(known.id, known.category, known.name) for known in state.items)
    return ItemTable(
        version=snapshot.version,
        top=tuple(items[place] for place in served.top),
        popular={category: tuple(items[place] for place in places) for category, places in served.popular.items()},
        items=items,
        near={stable_id(item.id): packed for item, packed in zip(items, served.near, strict=False) if packed},
        usual=tuple(served.usual),
        thin={stable_id(item.id): thin for item, thin in zip(items, served.thin, strict=False)},
        by_segment={name: tuple(items[place] for place in places) for name, places in served.by_segment.items()},
    )
