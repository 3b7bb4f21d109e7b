"""The catalog: what there is to buy, one record an item on a compacted topic that every worker reads whole.

The shop writes it: the newest record of a key is what the item is now, no value takes it away. An item's *version* is
the offset of its record, so a change is the same change for everybody who reads it. `decode_item` never raises.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from schemas.decoding import json_reader
from schemas.events import Rejected

ITEM_BYTES_MAX: Final = 8_192
ID_CHARS_MAX: Final = 64

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_CHARS_MAX)]
_Name = Annotated[str, msgspec.Meta(max_length=200)]
_Category = Annotated[str, msgspec.Meta(max_length=64)]
_Currency = Annotated[str, msgspec.Meta(max_length=8)]
_Price = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Stock = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Url = Annotated[str, msgspec.Meta(max_length=500)]


class CatalogItem(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True, gc=False):
    """One thing to buy.

    `id` is what events call `product_id`, and the record's key. `price` is what it costs now, `stock` how many there
    are: 0 is out of stock, and without a number it can be bought. `category` is what events call so.
    """

    id: _Id
    name: _Name = ""
    category: _Category = ""
    price: _Price | None = None
    currency: _Currency = ""
    stock: _Stock | None = None
    url: _Url = ""
    image: _Url = ""

    @property
    def in_stock(self) -> bool:
        """Whether it can be bought."""
        return self.stock != 0


_encode = msgspec.json.Encoder().encode
_read = json_reader(CatalogItem, ITEM_BYTES_MAX)


def decode_item(raw: bytes, key: bytes | None) -> CatalogItem | Rejected:
    """The item of a record that has a value, or why it is none."""
    item = _read(raw)
    if isinstance(item, Rejected):
        return item
    if not key:
        return Rejected("missing_key", "the record key must be the item's id, or Kafka cannot compact the topic")
    if key != item.id.encode():
        return Rejected("key_mismatch", "the record key is not the item's id")
    return item


def encode_item(item: CatalogItem) -> bytes:
    """The JSON value of a record of the `catalog` topic."""
    return _encode(item)
