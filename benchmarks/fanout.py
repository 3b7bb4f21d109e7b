"""What it costs to find the users whom a change of the catalog concerns: by an index, or by a pass over all rows.

    python -m benchmarks.fanout --json

Rows of users with wishes in a store of one partition, as the worker keeps them. *Build* reads every row and makes the
index; *look-up* asks it for a change's users; *pass* reads every row and asks each for its interest in a category;
*offer* is what the core then does with a user (row from its bytes, decision, row to its bytes). Figures are processor
time. `items` are drawn with Zipf's law, so that some are wanted by many.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.browsing import Browsing, Wish
from app.core.campaign import Campaign, ItemTrigger, Trigger, Variant
from app.core.catalog import Catalog, item_hash
from app.core.interest import level_of
from app.core.offers import Offer
from app.core.plan import Plan
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.render import MessageTemplate
from app.stream.store import PartitionStore
from app.stream.stores import StoreFactory
from app.stream.wish_index import WishIndex
from benchmarks.core import ConstantScorer
from schemas.catalog import CatalogItem

NOW_MS = 1_772_442_000_000
PAGE_ROWS = 64


def rows(users: int, items: int, wishes: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Users with typical rows."""
    dice = random.Random(seed)
    weights = [1 / rank for rank in range(1, items + 1)]
    hashes = [item_hash(f"p{number}") for number in range(items)]
    for number in range(users):
        wanted = dict.fromkeys(dice.choices(hashes, weights, k=wishes))
        profile = Profile(
            offset=number,
            events=20,
            last=dict.fromkeys(range(6), NOW_MS),
            features={feature: [3, 20_000, 1, 20_001, 2] for feature in range(12)},
            affinity={f"CATEGORY {dice.randrange(50)}": level_of(2.0, NOW_MS) for _ in range(4)},
            consent=1,
            browsing=Browsing(wishes={item: Wish(NOW_MS - 1000, 1, 100_000) for item in wanted}),
        )
        yield b"user-%d" % number, encode_profile(profile)


def pages(store: PartitionStore) -> Iterator[list[tuple[bytes, Profile]]]:
    """Every row, decoded."""
    cursor = b""
    while page := store.page(cursor, PAGE_ROWS):
        yield [(key, decode_profile(value)) for key, value in page]
        cursor = page[-1][0]


def run(users: int, items: int, wishes: int, seed: int) -> dict[str, float]:
    """All figures, on a store in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        store = StoreFactory(Path(folder)).open("profiles", 0)
        made = list(rows(users, items, wishes, seed))
        for start in range(0, len(made), 1000):
            chunk = made[start : start + 1000]
            store.write(chunk, added=len(chunk), next_offset=start)
        store.flush()
        del made
        began = time.process_time()
        index = _built(store)
        build_s = time.process_time() - began
        tracemalloc.start()  # slows what it counts, so a second index is built for it
        again = _built(store)
        index_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del again

        began = time.process_time()
        found = [index.keys(item_hash(f"p{number}")) for number in range(items)]
        lookup_s = time.process_time() - began

        began = time.process_time()
        liked = sum(len(profile.affinity.keys() & {"CATEGORY 1"}) for page in pages(store) for _, profile in page)
        pass_s = time.process_time() - began

        offer_us = _offer_us(store, found[0][:2000])
        store.close()
    return {
        "users": users,
        "wishes": len(index),
        "build_us_per_row": build_s / users * 1e6,
        "index_bytes_per_user": index_bytes / users,
        "lookup_us_per_change": lookup_s / items * 1e6,
        "users_per_change": len(index) / items,
        "pass_us_per_row": pass_s / users * 1e6,
        "liked": liked,
        "offer_us_per_user": offer_us,
    }


def _built(store: PartitionStore) -> WishIndex:
    index = WishIndex()
    for page in pages(store):
        for key, profile in page:
            assert profile.browsing is not None
            for item in profile.browsing.wishes:
                index.add(item, key)
    index.built()
    return index


def _offer_us(store: PartitionStore, keys: Sequence[bytes]) -> float:
    trigger = Trigger("price_drop", item=ItemTrigger(15, by=0.1))
    template = MessageTemplate(
        "{{ item.name }}: {{ item.drop_percent }} % off", "Now {{ item.price }}.", also=frozenset({"item"})
    )
    campaign = Campaign("cheaper", "wish", trigger, (Variant("a", 1.0, template.render),), expires_ms=86_400_000)
    processor = Processor(Plan("bench", campaigns=(campaign,)), ConstantScorer(), lambda *_: {"bias": 1.0})
    catalog = processor.catalog = Catalog()
    catalog.take("p0", CatalogItem(id="p0", name="A thing", price=100.0), 0, NOW_MS)
    change = catalog.take("p0", CatalogItem(id="p0", name="A thing", price=80.0), 1, NOW_MS)
    assert change is not None
    offer = Offer(wished=(change,))
    began = time.process_time()
    sent = 0
    for start in range(0, len(keys), PAGE_ROWS):
        page = list(keys[start : start + PAGE_ROWS])
        held = {key: decode_profile(value or b"") for key, value in zip(page, store.get_many(page), strict=True)}
        effects = processor.offer(dict.fromkeys(page, offer), held, now_ms=NOW_MS + 1000, mark=0, acked_offset=0)
        sent += len(effects.outputs)
        for row in effects.changed.values():
            encode_profile(row)
    assert sent == len(keys), (sent, len(keys))
    return (time.process_time() - began) / len(keys) * 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--wishes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    options = parser.parse_args(arguments)
    result = run(options.users, options.items, options.wishes, options.seed)
    for name, value in result.items():
        print(f"{name:24} {value:12,.1f}")
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
