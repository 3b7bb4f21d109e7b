"""The decision core alone: JSON decode, fold, segments, triggers, arbiter. No Kafka, no encoding of rows, one thread.

    python -m benchmarks.core --json

Prints microseconds an event for 10, 20, 50 and 200 segments in one process, beside the floor: the same records decoded
and checked, and nothing else. As in the worker, the rows of 64 records are decoded just before and encoded just after;
both are measured apart. Segments are real expressions over shared windows, as policies write them. Times are processor
time, so that a busy machine does not blur them.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from app.core.campaign import Campaign, Trigger, Variant
from app.core.effects import Effects
from app.core.expressions import compile_expression
from app.core.features import open_features
from app.core.plan import Cap, EventPlan, Feature, Plan, QuietHours, Segment
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from benchmarks.common import machine
from schemas.events import decode_event

SEGMENTS: Final = (10, 20, 50, 200)
BATCH_RECORDS: Final = 512
SLICE_RECORDS: Final = 256
START_MS: Final = 1_772_463_600_000  # 2026-03-02 15:00 UTC: in nobody's quiet hours
SPAN_MS: Final = 6 * 3_600_000

NAMES: Final = (
    ("Product Viewed", 0.60),
    ("Application Opened", 0.25),
    ("Product Added", 0.05),
    ("Order Completed", 0.02),
    ("Notification Opened", 0.03),
    ("Song Played", 0.05),
)
CATEGORIES: Final = ("grocery", "produce", "drug", "meat", "deli", "pastry", "garden", "coffee")

# {k} is a threshold, {c} a category. Windows are shared, as in real policies.
EXPRESSIONS: Final = (
    "count('Product Viewed', '1h') >= {k}0",
    "count('Product Added', '24h') >= {k} and not did('Order Completed', '7d')",
    "sum('Order Completed.revenue', '30d') > {k}0",
    "trait('income', '') in ['35-49K', '50-74K'] and count('Product Viewed', '24h') >= {k}",
    "since('Order Completed') > '{k}d' and orders() >= 1",
    "count('Product Viewed', '24h', where=category == '{c}') >= {k}",
    "count('Application Opened', '7d') >= {k} and count('Product Viewed', '7d') < {k}0",
    "orders() >= {k} and revenue() > {k}00",
    "open_rate() > 0.1 and count('Notification Opened', '7d') >= {k}",
    "trait('age', '') == '25-34' and since('Application Opened') < '{k}h'",
)


class BenchRecord(msgspec.Struct, gc=False):
    """A consumer record as far as the core reads it."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class ConstantScorer:
    """A model that costs nothing: its time is measured in benchmarks.learning."""

    version = 1

    def open_probability(self, features: Any) -> float:
        return 0.1


def records(count: int, users: int, seed: int) -> Iterator[BenchRecord]:
    """Segment-form events in the order of their times, as an app's SDK sends them."""
    rng = random.Random(seed)
    names = rng.choices([name for name, _ in NAMES], [share for _, share in NAMES], k=count)
    for number, name in enumerate(names):
        user = f"user-{int(rng.random() ** 2 * users):07d}"
        at = datetime.fromtimestamp((START_MS + SPAN_MS * number // count) / 1000, UTC)
        message = {
            "type": "track",
            "event": name,
            "userId": user,
            "messageId": f"m-{seed}-{number}",
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "context": {"timezone": "America/New_York", "device": {"type": "ios"}},
            "properties": {
                "category": rng.choice(CATEGORIES),
                "product_id": f"p-{int(rng.random() * 5000)}",
                "cart_id": f"c-{user}",
                "revenue": round(1 + rng.random() * 90, 2),
            },
        }
        yield BenchRecord(user.encode(), json.dumps(message).encode(), number)


def make_plan(number: int) -> Plan:
    """A policy of `number` segments and four campaigns, with caps and quiet hours."""
    segments: list[Segment] = []
    features: dict[str, Feature] = {}
    for n in range(number):
        template = EXPRESSIONS[n % len(EXPRESSIONS)]
        text = template.format(k=3 + n // len(EXPRESSIONS), c=CATEGORIES[n % 8])
        made = compile_expression(text)
        features.update((feature.text, feature) for feature in made.features)
        segments.append(
            Segment(
                f"s{n}",
                text,
                made.evaluate,
                made.next_change,
                made.events,
                reads_clock=made.clocked,
                condition=made.condition,
            )
        )
    plain = (Variant("a", 1.0, lambda _context: SimpleNamespace(title="t", body="b", deep_link="")),)
    cart = Trigger(
        "absence",
        event="Product Added",
        wait_ms=900_000,
        cancel=frozenset({"Order Completed"}),
        key_property="cart_id",
    )
    campaigns = (
        Campaign("thanks", "service", Trigger("event", event="Order Completed"), plain),
        Campaign("cart", "promo", cart, plain, cool_down_ms=86_400_000),
        Campaign("dormant", "promo", Trigger("dormancy", wait_ms=172_800_000), plain),
        Campaign("keen", "promo", Trigger("enter", segment="s0"), plain, cool_down_ms=86_400_000),
    )
    return _assemble(tuple(segments), tuple(features.values()), campaigns)


def _assemble(segments: tuple[Segment, ...], features: tuple[Feature, ...], campaigns: tuple[Campaign, ...]) -> Plan:
    def touched(name: str) -> EventPlan:
        return EventPlan(
            tuple(feature for feature in features if feature.event == name),
            tuple(segment for segment in segments if name in segment.events or "*" in segment.events),
            tuple(campaign for campaign in campaigns if name and campaign.trigger.event == name),
            tuple(campaign for campaign in campaigns if name in campaign.trigger.cancel),
        )

    return Plan(
        version=f"benchmark-{len(segments)}",
        segments=segments,
        features=features,
        campaigns=campaigns,
        caps=(Cap(2, 86_400_000), Cap(5, 7 * 86_400_000)),
        quiet_hours=QuietHours(22 * 60, 8 * 60),
        suppressed_share=0.1,
        events={name: touched(name) for name, _ in NAMES},
        other=touched(""),
        on_traits=touched("$traits"),
        segment_by_id={segment.id: segment for segment in segments},
        campaign_by_id={campaign.id: campaign for campaign in campaigns},
        on_segment={"s0": (campaigns[3],)},
    )


def floor_us(batches: Sequence[Sequence[BenchRecord]]) -> float:
    """Decode and check only."""
    began = time.process_time()
    for batch in batches:
        for record in batch:
            decode_event(record.value, record.key)
    return (time.process_time() - began) * 1e6 / sum(map(len, batches))


class _Store:
    """Encoded rows, as RocksDB keeps them, and how long the core takes with some of them decoded."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.seconds = 0.0

    def run(self, keys: Iterable[bytes | None], work: Callable[[dict[bytes, Profile]], Effects]) -> Effects:
        """Decode the rows of `keys`, time `work` on them, and store what it changed."""
        known = {key: self.rows[key] for key in keys if key in self.rows}
        decoded = {key: decode_profile(raw) for key, raw in known.items()}
        began = time.process_time()
        effects = work(decoded)
        self.seconds += time.process_time() - began
        self.rows.update((key, encode_profile(row)) for key, row in effects.changed.items())
        return effects


def core_us(records: Sequence[BenchRecord], number: int) -> dict[str, Any]:
    """Run the records and measure their second half, when the rows are known. Timers fire every 512 records."""
    processor = Processor(make_plan(number), ConstantScorer(), open_features)
    events, timers = _Store(), _Store()
    timers.rows = events.rows
    counts: Counter[tuple[str, ...]] = Counter()
    total = len(records)
    each_us: list[float] = []
    fired = 0
    due: dict[bytes, int] = {}
    for start in range(0, total, SLICE_RECORDS):
        if start == total // 2 // BATCH_RECORDS * BATCH_RECORDS:
            each_us, fired, timers.seconds = [], 0, 0.0
            counts.clear()
        part = records[start : start + SLICE_RECORDS]
        now_ms = START_MS + SPAN_MS * (part[-1].offset + 1) // total
        before_s = events.seconds
        effects = events.run([record.key for record in part], partial(_process, processor, part, now_ms, events))
        each_us.append((events.seconds - before_s) * 1e6 / len(part))
        counts.update(effects.counts)
        due.update((key, at_ms) for at_ms, key in effects.due)
        if (start + len(part)) % BATCH_RECORDS:
            continue
        keys = [key for key, at_ms in due.items() if at_ms <= now_ms]
        for key in keys:
            del due[key]
        effects = timers.run(keys, partial(_fire, processor, keys, now_ms, part[-1].offset + 1))
        fired += len(keys)
        counts.update(effects.counts)
        due.update((key, at_ms) for at_ms, key in effects.due)
    return {
        "process_us_per_event": round(statistics.fmean(each_us), 2),
        "process_us_p50": round(statistics.median(each_us), 2),
        "process_us_p99": round(statistics.quantiles(each_us, n=100)[98], 2),
        "fire_us_per_row": round(timers.seconds * 1e6 / max(fired, 1), 2),
        "rows_fired": fired,
        "us_per_event_with_timers": round(statistics.fmean(each_us) + timers.seconds * 1e6 / (total / 2), 2),
        "decisions_per_event": _share(counts, "decisions", total / 2),
        "segment_changes_per_event": _share(counts, "segment_changes", total / 2),
        **_row_costs(events.rows),
    }


def _process(
    processor: Processor, part: Sequence[BenchRecord], now_ms: int, store: _Store, rows: dict[bytes, Profile]
) -> Effects:
    def reload(key: bytes) -> Profile | None:
        raw = store.rows.get(key)
        return None if raw is None else decode_profile(raw)

    acked = part[0].offset - 4 * BATCH_RECORDS
    return processor.process(part, "events", 0, rows, now_ms=now_ms, acked_offset=acked, reload=reload)


def _fire(processor: Processor, keys: list[bytes], now_ms: int, mark: int, rows: dict[bytes, Profile]) -> Effects:
    return processor.fire(keys, rows, now_ms=now_ms, mark=mark, acked_offset=0)


def _share(counts: Counter[tuple[str, ...]], metric: str, events: float) -> float:
    return round(sum(number for labels, number in counts.items() if labels[0] == metric) / events, 4)


def _row_costs(rows: dict[bytes, bytes]) -> dict[str, Any]:
    encoded = list(rows.values())[:5000]
    began = time.process_time()
    sample = [decode_profile(raw) for raw in encoded]
    decode_us = (time.process_time() - began) * 1e6 / len(sample)
    began = time.process_time()
    for row in sample:
        encode_profile(row)
    encode_us = (time.process_time() - began) * 1e6 / len(sample)
    sizes = statistics.quantiles(map(len, encoded), n=100)
    return {
        "row_bytes_p50": round(sizes[49]),
        "row_bytes_p99": round(sizes[98]),
        "encode_us": round(encode_us, 2),
        "decode_us": round(decode_us, 2),
    }


def _flat(measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures that have a bar, by one key each. Rows are those of 20 segments."""
    flat = {f"us_per_event_{number}_segments": one["process_us_per_event"] for number, one in measured.items()}
    return flat | {key: measured["20"][key] for key in ("row_bytes_p50", "row_bytes_p99") if "20" in measured}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--users", type=int, default=5_000)
    arguments.add_argument("--events", type=int, default=200_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--segments", type=int, nargs="*", default=list(SEGMENTS))
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    stream = list(records(options.events, options.users, options.seed))
    batches = [stream[start : start + BATCH_RECORDS] for start in range(0, len(stream), BATCH_RECORDS)]
    gc.collect()
    gc.freeze()  # the workload is not the core's garbage
    result: dict[str, Any] = {
        "workload": {"users": options.users, "events": options.events, "seed": options.seed},
        "floor_decode_us": round(floor_us(batches), 2),
        "segments": {},
    }
    print(f"decode and check only: {result['floor_decode_us']} us an event")
    for number in options.segments:
        measured = result["segments"][str(number)] = core_us(stream, number)
        ratio = measured["process_us_per_event"] / result["floor_decode_us"]
        print(f"{number:>4} segments: {measured['process_us_per_event']:>6} us an event ({ratio:.1f} x decode)")
        print(f"     {measured}")
    if options.json:
        print(json.dumps({"machine": machine(), **result, **_flat(result["segments"])}))


if __name__ == "__main__":
    main()
