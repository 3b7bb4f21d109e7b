"""Products in a row: those viewed lately, bought, and wanted.

Folded by `app.core.items` and `app.core.wishes`; read by `app.core.recommend` and `app.core.offers`.

Most events only pass by what stands here, so it is packed: a row with ten views and a hundred purchases as objects took
a third more of the core's time an event, and twice that of its own to decode and encode.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import msgspec


class Item(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A product: the producers' id for it, and what it is called; category and name may be empty."""

    id: str
    category: str = ""
    name: str = ""


class Viewed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A product that was looked at, and when."""

    at_ms: int
    item: Item


class Wish(msgspec.Struct, array_like=True, gc=False):
    """An item of the catalog that the user showed interest in.

    Parameters
    ----------
    at_ms
        Newest interest.
    kinds
        What they did with it, as bits of `app.core.wishes.KINDS`.
    price_milli
        What it cost when they last saw it, or were told; 0 when that is not known.
    told
        The newest version of the item (offset in `catalog`) that was offered to the user.
    """

    at_ms: int
    kinds: int
    price_milli: int = 0
    told: int = -1


class Browsing(msgspec.Struct, array_like=True, gc=False):
    """Of one user, in rows of a policy that recommends products or speaks of changes of the catalog.

    Parameters
    ----------
    viewed, bought
        Packed: `views_of` and `purchases_of` read them. Older rows have them as objects.
    day, baskets
        How many orders went to the learner on that day (days since 1970).
    wishes
        By `app.core.catalog.item_hash`, bounded.
    told_affine
        Offers that follow from the user's interest in a category have been made up to this version of the catalog.
    """

    viewed: bytes | list[Viewed] = b""
    bought: bytes | dict[int, int] = b""
    day: int = 0
    baskets: int = 0
    wishes: dict[int, Wish] = {}
    told_affine: int = -1


VIEWED_MAX: Final = 10
VIEWED_BYTES: Final = 480
"""Above it views are tidied: until then one more costs nothing but its own bytes."""
BOUGHT_MAX: Final = 128

_LENGTH: Final = struct.Struct("<H")
_SECONDS_MAX: Final = 2**32 - 1
_encode_view = msgspec.msgpack.Encoder().encode
_decode_view = msgspec.msgpack.Decoder(Viewed).decode


def views_of(state: Browsing) -> list[Viewed]:
    """Newest last, each product once, the newest `VIEWED_MAX`.

    Examples
    --------
    >>> state = Browsing()
    >>> for at_ms, product in enumerate(["tea", "milk", "tea"]):
    ...     add_view(state, Viewed(at_ms, Item(product)))
    >>> [(view.at_ms, view.item.id) for view in views_of(state)]
    [(1, 'milk'), (2, 'tea')]
    """
    packed = state.viewed
    if not isinstance(packed, bytes):
        return newest_views(packed)
    views, at = [], 0
    while at < len(packed):
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size + length
        views.append(_decode_view(packed[at - length : at]))
    return newest_views(views)


def newest_views(views: Iterable[Viewed]) -> list[Viewed]:
    """Each product once, at its newest view; the newest `VIEWED_MAX`, newest last."""
    by_id: dict[str, Viewed] = {}
    for one in sorted(views, key=lambda one: (one.at_ms, one.item.id)):
        by_id.pop(one.item.id, None)
        by_id[one.item.id] = one
    return list(by_id.values())[-VIEWED_MAX:]


def pack_views(views: Iterable[Viewed]) -> bytes:
    """Views as a row holds them."""
    return b"".join([_LENGTH.pack(len(raw)) + raw for raw in map(_encode_view, views)])


def add_view(state: Browsing, view: Viewed) -> None:
    """One view more. Views are tidied now and then, which changes nothing about what `views_of` says."""
    packed = state.viewed if isinstance(state.viewed, bytes) else pack_views(views_of(state))
    raw = _encode_view(view)
    state.viewed = packed + _LENGTH.pack(len(raw)) + raw
    if len(packed) > VIEWED_BYTES:
        state.viewed = pack_views(views_of(state))


def purchases_of(state: Browsing) -> dict[int, int]:
    """Stable id of a product to its newest purchase (event time, ms, in whole seconds), the newest `BOUGHT_MAX`.

    Two products of one id would be taken for one: a recommendation less, never one too many.
    """
    return {product: seconds * 1000 for product, seconds in _seconds_of(state.bought).items()}


def _seconds_of(packed: bytes | dict[int, int]) -> dict[int, int]:
    if not isinstance(packed, bytes):
        return {product: _seconds(at_ms) for product, at_ms in packed.items()}
    numbers = struct.unpack(f"<{len(packed) // 4}I", packed)
    return dict(zip(numbers[::2], numbers[1::2], strict=True))


def add_purchases(state: Browsing, products: Iterable[int], at_ms: int) -> None:
    """Products bought at a time, which is nearly always the newest: then nothing need be sorted.

    Examples
    --------
    >>> state = Browsing()
    >>> for products, at_ms in [([1, 2], 5_000), ([1, 3], 7_000), ([4, 3], 6_000)]:
    ...     add_purchases(state, products, at_ms)
    >>> purchases_of(state)
    {2: 5000, 4: 6000, 1: 7000, 3: 7000}
    """
    times, at = _seconds_of(state.bought), _seconds(at_ms)
    if times and next(reversed(times.values())) >= at:
        state.bought = _packed(_newest(times, dict.fromkeys(products, at)))
        return
    for product in sorted(products):
        times.pop(product, None)
        times[product] = at
    state.bought = _packed(times)[-8 * BOUGHT_MAX :]


def joined_purchases(ours: Browsing, theirs: Browsing) -> bytes:
    """What both bought, each product at its newest purchase, packed."""
    return _packed(_newest(_seconds_of(ours.bought), _seconds_of(theirs.bought)))


def pack_purchases(times: dict[int, int]) -> bytes:
    """Purchases (ms) as a row holds them."""
    return _packed(_newest({}, _seconds_of(times)))


def _newest(ours: dict[int, int], theirs: dict[int, int]) -> dict[int, int]:
    times = dict(ours)
    for product, at in theirs.items():
        times[product] = max(times.get(product, 0), at)
    return dict(sorted(times.items(), key=lambda entry: (entry[1], entry[0]))[-BOUGHT_MAX:])


def _packed(times: dict[int, int]) -> bytes:
    flat = [0] * (2 * len(times))
    flat[::2] = times
    flat[1::2] = times.values()
    return struct.pack(f"<{len(flat)}I", *flat)


def _seconds(at_ms: int) -> int:
    return min(max(at_ms // 1000, 0), _SECONDS_MAX)
