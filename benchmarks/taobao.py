"""Segments and cart triggers on an app's real click stream, against an independent recomputation in SQL.

    NUDGE_DATA=/path/to/data python -m benchmarks.taobao --json

Runs the core over `taobao_100k.csv.gz` (100,001 events of 984 users, not in this repository) with a policy of six
segments and one cart reminder, minute by minute, timers at their exact instants. SQLite then computes from the raw
events who is in which segment at some instants, and which carts were left, and when. Prints both sizes and every
difference; the exit code is 1 when there is one.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import heapq
import json
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from app.core.features import open_features
from app.core.panes import NEVER_MS
from app.core.plan import Plan
from app.core.processor import Processor
from app.core.profile import Profile
from app.policy.load import load_policy_text
from benchmarks.core import BenchRecord, ConstantScorer
from schemas.decisions import decode_decision
from schemas.topics import DECISIONS

FILE: Final = "taobao_100k.csv.gz"
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
START_MS: Final = 1_511_539_200_000
"""2017-11-25 00:00 at the shop, the beginning of the log's nine days."""
WAIT_MS: Final = 6 * HOUR_MS
INSTANTS: Final = (
    *tuple(
        START_MS + day * DAY_MS + minute * MINUTE_MS
        for day, minute in ((0, 725), (1, 13), (3, 480), (5, 1199), (8, 1380))
    ),
    START_MS + 12 * DAY_MS,
)
"""When memberships are compared: in the evening, at night, on an hour and on a day, and three days after the end."""

NAMES: Final = {"pv": "Product Viewed", "cart": "Product Added", "fav": "Product Favourited", "buy": "Order Completed"}

POLICY: Final = """
version: "1"
name: taobao
defaults: {consent: assumed, grace: 24h, suppressed_share: 100%}
segments:
  - {name: browsing, when: 'count("Product Viewed", "1h") >= 5'}
  - {name: keen, when: 'count("Product Viewed", "24h") >= 20 and not did("Order Completed", "3d")'}
  - {name: big_cart, when: 'sum("Product Added.price", "5d") > 250'}
  - {name: curious, when: 'distinct("Product Viewed.category", "24h") >= 8'}
  - {name: lapsed, when: 'since("Order Completed") > "2d" and did("Order Completed", "7d")'}
  - name: dear_or_liked
    when: count("Product Viewed", "48h", where=price >= 90) >= 4 or did("Product Favourited", "90m")
campaigns:
  - name: left_cart
    category: cart
    trigger: {absence: {after: Product Added, without: Order Completed, for: 6h, key: product_id}}
    value: 1.0
    cost: 0.0
    template: {title: Still yours, body: It waits for you., deep_link: "shop://cart"}
"""

# A window of n panes ends with the pane of the present: minutes up to an hour, hours up to two days, else days.
SEGMENTS: Final = {
    "browsing": """SELECT user FROM e WHERE name = 'pv' AND at / 60000 > :now / 60000 - 60
        GROUP BY user HAVING COUNT(*) >= 5""",
    "keen": """SELECT user FROM e WHERE name = 'pv' AND at / 3600000 > :now / 3600000 - 24
        GROUP BY user HAVING COUNT(*) >= 20
        EXCEPT SELECT user FROM e WHERE name = 'buy' AND at > :now - 259200000""",
    "big_cart": """SELECT user FROM e WHERE name = 'cart' AND at / 86400000 > :now / 86400000 - 5
        GROUP BY user HAVING SUM(price) > 250""",
    "curious": """SELECT user FROM e WHERE name = 'pv' AND at / 3600000 > :now / 3600000 - 24
        GROUP BY user HAVING COUNT(DISTINCT category) >= 8""",
    "lapsed": """SELECT user FROM e WHERE name = 'buy'
        GROUP BY user HAVING MAX(at) < :now - 172800000 AND MAX(at) > :now - 604800000""",
    "dear_or_liked": """SELECT user FROM e WHERE name = 'pv' AND price >= 90 AND at / 3600000 > :now / 3600000 - 48
        GROUP BY user HAVING COUNT(*) >= 4
        UNION SELECT user FROM e WHERE name = 'fav' AND at > :now - 5400000""",
}
CARTS: Final = """
SELECT user, item, seen + :wait FROM e AS cart WHERE name = 'cart' AND seen + :wait <= :until AND NOT EXISTS (
    SELECT 1 FROM e AS later WHERE later.user = cart.user AND later.item = cart.item AND later.name IN ('cart', 'buy')
    AND later.n > cart.n AND later.seen <= cart.seen + :wait)
"""
"""A cart is left when neither a purchase nor a new cart of that item was seen in the wait after it was seen."""


class Click(NamedTuple):
    """One event: its number in order of time, instant, and the end of the minute in which it was seen."""

    n: int
    user: str
    item: str
    category: str
    name: str
    at_ms: int
    seen_ms: int
    price: int


Due = set[tuple[str, str, int]]
Held = dict[tuple[int, str], set[str]]


def read(path: Path) -> list[Click]:
    """All events in order of time. The log has no prices; an item's is made from its number."""
    with gzip.open(path, "rt", newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: int(row["ts"]))
    clicks = []
    for n, row in enumerate(rows):
        at_ms = int(row["ts"]) * 1000
        seen_ms = -(-at_ms // MINUTE_MS) * MINUTE_MS
        price = int(row["item_id"]) % 100
        clicks.append(
            Click(n, row["user_id"], row["item_id"], row["category_id"], row["behavior"], at_ms, seen_ms, price)
        )
    return clicks


def record(click: Click) -> BenchRecord:
    """The event as an app would send it."""
    message = {
        "type": "track",
        "event": NAMES[click.name],
        "userId": click.user,
        "messageId": f"m{click.n}",
        "timestamp": click.at_ms,
        "properties": {"product_id": click.item, "category": click.category, "price": click.price},
    }
    return BenchRecord(click.user.encode(), json.dumps(message).encode(), click.n)


class Engine:
    """The core with a clock: rows, what is due, and the reminders that came due."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows: dict[bytes, Profile] = {}
        self.due: Due = set()
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._processor = Processor(plan, ConstantScorer(), open_features)
        self._queue: list[tuple[int, bytes]] = []
        self._mark = 0

    def take(self, batch: Sequence[BenchRecord], now_ms: int) -> None:
        """Process one batch."""
        self._mark = batch[-1].offset + 1
        acked = batch[0].offset
        self._settle(
            self._processor.process(
                batch, "events", 0, self.rows, now_ms=now_ms, acked_offset=acked, reload=self.rows.get
            )
        )

    def advance(self, until_ms: int) -> None:
        """Fire all that is due by then, each at its instant."""
        while self._queue and self._queue[0][0] <= until_ms:
            now_ms = self._queue[0][0]
            keys = set()
            while self._queue and self._queue[0][0] <= now_ms:
                keys.add(heapq.heappop(self._queue)[1])
            self._settle(
                self._processor.fire(sorted(keys), self.rows, now_ms=now_ms, mark=self._mark, acked_offset=self._mark)
            )

    def members(self) -> dict[str, set[str]]:
        """User ids by segment."""
        return {
            segment.name: {key.decode() for key, row in self.rows.items() if segment.id in row.segments}
            for segment in self.plan.segments
        }

    def _settle(self, effects: Any) -> None:
        self.counts.update(effects.counts)
        for at_ms, key in effects.due:
            if at_ms < NEVER_MS:
                heapq.heappush(self._queue, (at_ms, key))
        for output in effects.outputs:
            if output.topic == DECISIONS:
                made = decode_decision(output.value or b"")
                self.due.add((made.user, made.trigger_key, made.decided_ms))


def run(clicks: Sequence[Click]) -> tuple[Engine, Held]:
    """The engine after the last instant, and who was in which segment at each."""
    engine = Engine(load_policy_text(POLICY))
    held: Held = {}
    ahead = list(INSTANTS)

    def look(before_ms: int) -> None:
        while ahead and ahead[0] < before_ms:
            engine.advance(ahead[0])
            held.update({(ahead[0], name): users for name, users in engine.members().items()})
            del ahead[0]

    for seen_ms, batch in groupby(clicks, key=lambda click: click.seen_ms):
        look(seen_ms)
        engine.advance(seen_ms - 1)
        engine.take([record(click) for click in batch], seen_ms)
    look(NEVER_MS)
    return engine, held


def expected(clicks: Sequence[Click]) -> tuple[Held, Due]:
    """Memberships and reminders by SQL."""
    base = sqlite3.connect(":memory:")
    base.execute(
        "CREATE TABLE raw (n INTEGER PRIMARY KEY, user, item, category, name, at INTEGER, seen INTEGER, price)"
    )
    base.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?, ?, ?, ?)", clicks)
    base.execute("CREATE INDEX by_item ON raw (user, item)")
    base.execute("CREATE TABLE clock AS SELECT 0 AS now")
    base.execute("CREATE VIEW e AS SELECT raw.* FROM raw, clock WHERE seen <= clock.now")
    held: Held = {}
    for now_ms in INSTANTS:
        base.execute("UPDATE clock SET now = ?", (now_ms,))
        for name, query in SEGMENTS.items():
            held[now_ms, name] = {user for (user,) in base.execute(query, {"now": now_ms})}
    return held, set(base.execute(CARTS, {"wait": WAIT_MS, "until": INSTANTS[-1]}))


def differences(clicks: Sequence[Click]) -> tuple[dict[str, Any], list[str]]:
    """Figures of a comparison, and what differs."""
    began = time.process_time()
    engine, held = run(clicks)
    seconds = time.process_time() - began
    want, carts = expected(clicks)
    found = [
        f"{name} at {at_ms}: {sorted(held[at_ms, name] ^ users)[:5]}"
        for (at_ms, name), users in want.items()
        if held[at_ms, name] != users
    ]
    found += [f"cart {cart}" for cart in sorted(engine.due ^ carts)[:20]]
    dropped = sum(number for labels, number in engine.counts.items() if labels[0] == "dropped_timers")
    figures = {
        "events": len(clicks),
        "users": len(engine.rows),
        "memberships_compared": len(want),
        "members": {name: [len(want[at_ms, name]) for at_ms in INSTANTS] for name in SEGMENTS},
        "carts": sum(click.name == "cart" for click in clicks),
        "carts_left": len(carts),
        "dropped_timers": dropped,
        "core_s": round(seconds, 1),
        "differences": len(found),
    }
    return figures, found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=os.environ.get("NUDGE_DATA"), help="folder of the data sets")
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    if options.data is None:
        arguments.error("give --data or NUDGE_DATA")
    figures, found = differences(read(Path(options.data) / FILE))
    for line in found:
        print(line)
    print(json.dumps(figures) if options.json else figures)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
