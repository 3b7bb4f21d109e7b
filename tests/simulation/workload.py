"""What happens to the users of a simulation, and what a single thread makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from app.core import open_rates
from app.core.catalog import Catalog
from app.core.features import open_features
from app.core.ids import stable_id
from app.core.offers import Offer
from app.core.processor import Processor
from app.core.profile import Profile
from app.core.row_parts import Output
from app.learning.scorer import FrozenModel
from app.policy.load import load_policy_text
from schemas.catalog import CatalogItem, decode_item
from schemas.decisions import Decision, decode_decision
from schemas.events import (
    NOTIFICATION_CLICKED,
    NOTIFICATION_FAILED,
    NOTIFICATION_OPENED,
    NOTIFICATION_SENT,
    Event,
    encode_event,
)
from schemas.outcomes import decode_outcome
from schemas.segments import decode_membership
from schemas.topics import DEAD_LETTERS, DECISIONS, EVENTS, OUTCOMES, SEGMENTS
from tests.support.crowd import BROKEN
from tests.support.oracle import state_of

START_MS = 1_772_442_000_000
JUMP_MS = 120 * 86_400_000
"""The last move of the clock: every window ends, every label matures."""
POLICY = Path(__file__).parents[1] / "policies" / "simulation.yaml"
COUNTED = "keen"
"""The segment with a percentile: who is in it depends on when the users were counted."""
SEGMENT = f"""
  - name: {COUNTED}
    when: top(20, count("Product Viewed", "90d"))
"""
CAMPAIGNS = """
  - name: cheaper
    category: offers
    expires: 400d
    trigger: {price_drop: {by: 10%, interest: viewed, affinity: 1.5}}
    template: {title: "It is cheaper", body: "Now {{ item.price }}"}
  - name: back
    category: offers
    expires: 400d
    trigger: {back_in_stock: {interest: viewed}}
    template: {title: "It is back", body: "Again: {{ item.id }}"}
"""
SOLD = (
    CatalogItem(id="p0", price=50.0),
    CatalogItem(id="p1", price=20.0, stock=0),
    CatalogItem(id="p2", price=30.0),
    CatalogItem(id="p3", price=80.0, category="DELI"),
)
"""The catalog at first. Of the first three each user wants one, so that no two changes compete; of the last nobody."""
CHANGED = (
    CatalogItem(id="p0", price=40.0),
    CatalogItem(id="p1", price=20.0, stock=5),
    CatalogItem(id="p2", price=29.0),  # too little to be told
    CatalogItem(id="p3", price=60.0, category="DELI"),  # told to those who like such things
)
_NAMES = ("Product Viewed", "Product Added", "Order Completed", "Application Opened")


@cache
def _processor(place: int, beside: bool) -> Processor:
    text = POLICY.read_text()
    if beside:
        text = text.replace("campaigns:\n", SEGMENT + "campaigns:\n") + CAMPAIGNS
    return Processor(load_policy_text(text), FrozenModel(0, 0.0, {}), open_features)


def processor(version: int = 0, place: int = -1, *, beside: bool) -> Processor:
    """The core with a model that says something else in each version.

    `place` is where it runs: thresholds of percentiles are part of a compiled policy, so no two workers may share one.
    `beside` says whether the policy has a percentile and speaks of the catalog: both touch rows that would be left
    alone.
    """
    made = copy(_processor(place, beside))  # compiling the policy takes longer than a seed
    made.scorer = FrozenModel(version, version / 10, {})
    return made


def happen(rng: Random, number: int, now_ms: int, users: int, carts: set[int]) -> tuple[int, bytes, bytes]:
    """The user's number, the key and the value of one event; some are malformed.

    A user has one cart at most (`carts` are those who have): of two waits that end at once only one is a decision.
    """
    user = rng.randrange(users)
    key = f"user-{user}".encode()
    if rng.random() < 0.03:
        return user, key, rng.choice(BROKEN)
    name = rng.choices(_NAMES, (6, 1, 1, 2))[0]
    if name == "Product Added":
        if user in carts:
            name = "Product Viewed"
        carts.add(user)
    properties: dict[str, Any] = {"category": rng.choice(("MEAT", "DELI"))}
    wanted = f"p{user % 3}"
    if name == "Product Viewed":
        properties["product_id"] = wanted
    elif name == "Order Completed":
        bought = [{"product_id": wanted}] if number % 9 == 0 else []
        properties = {"order_id": f"o{number}", "revenue": rng.randrange(100, 5000) / 100, "products": bought}
    elif name == "Product Added":
        properties = {"cart_id": f"c{number}"}
    at_ms = now_ms - (rng.randrange(3_600_000) if rng.random() < 0.2 and name != "Product Added" else 0)
    event = Event(
        type="track",
        event=name,
        user_id=f"user-{user}",
        message_id=f"m{number}",
        timestamp=at_ms,
        properties=properties,
    )
    return user, key, encode_event(event)


def answers(rng: Random, made: Decision) -> Iterator[tuple[float, str]]:
    """What follows from a decision to send, and how many seconds after the one before; nothing from one to wait.

    The id of a wait that ended holds its due time, which depends on when its event was processed: who folds the events
    again does not know it.
    """
    if made.action != "send" or made.campaign == "cart":
        return
    if rng.random() < 0.1:
        yield rng.random(), NOTIFICATION_FAILED
        return
    yield rng.random(), NOTIFICATION_SENT
    for name, share in ((NOTIFICATION_OPENED, 0.5), (NOTIFICATION_CLICKED, 0.3)):
        if rng.random() < share:
            yield rng.random(), name


def compared(row: Profile) -> dict[str, Any]:
    """A row as it is compared.

    How many of its sends a cap still counts depends on when it was last looked at; how much its next example weighs, on
    when it had the last; and who is among the first, on when they were counted.
    """
    state = state_of(row)
    del state["sends"]
    state["examples"] = len(state["examples"])
    state["open_rates"] = (
        [round(number, 4) for number in open_rates._STATE.unpack(row.open_rates)] if row.open_rates else []
    )
    state["segments"] = [each for each in state["segments"] if each != stable_id(COUNTED)]
    return state


@dataclass
class Said:
    """What stands in the output topics: the first content under each name; decisions must be heard before outcomes."""

    decisions: dict[str, bytes] = field(default_factory=dict)
    outcomes: dict[str, bytes] = field(default_factory=dict)
    memberships: dict[str, bytes] = field(default_factory=dict)
    changes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    counted: dict[str, list[str]] = field(default_factory=dict)
    """Changes of the segment with a percentile, by user."""
    offers: int = 0
    dead: set[tuple[int, int]] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    """Names that were given to two contents."""

    def hear(self, topic: str, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> None:
        """One record."""
        if topic == DEAD_LETTERS:
            named = dict(headers)
            self.dead.add((int(named["nudge_partition"]), int(named["nudge_offset"])))
            return
        raw = value or b""
        if topic == DECISIONS:
            made = decode_decision(raw)
            # Not the id: that of a wait that ended holds its due time, which depends on when its event was processed.
            self.names[made.id] = name = f"{made.user} {made.campaign} {made.trigger_key} {made.source_offset}"
            if self._once(self.decisions, name, raw):
                self.offers += made.category == "offers"
        elif topic == OUTCOMES:
            outcome = decode_outcome(raw)
            kind = outcome.label if outcome.gain is None else "reward"
            self._once(self.outcomes, f"{self.names.get(outcome.id, outcome.id)} {kind}", raw)
        elif topic == SEGMENTS:
            change = decode_membership(raw)
            if not self._once(self.memberships, change.id, raw):
                return
            if change.segment == COUNTED:
                self.counted.setdefault(change.user, []).append(change.change)
            else:
                self.changes.setdefault(change.user, []).append((change.segment, change.change))

    def _once(self, known: dict[str, bytes], name: str, content: bytes) -> bool:
        if name not in known:
            known[name] = content
            return True
        if known[name] != content:
            self.contradictions.append(name)
        return False


@dataclass
class Truth:
    """Rows by key and outputs, as one thread makes them."""

    rows: dict[bytes, dict[str, Any]]
    said: Said


def truth_of(
    records: Iterable[Any], items: Iterable[tuple[Any, int]], now_ms: int, later_ms: int, *, beside: bool
) -> Truth:
    """Fold the records of `events` at `now_ms`, a partition at a time, tell all of the catalog's changes, then let
    the time pass to `later_ms`.

    Parameters
    ----------
    items
        Records of `catalog`, and when they were written; those of the beginning first.
    """
    core, said, states = processor(beside=beside), Said(), {}
    core.catalog, changes = Catalog(), []
    partitions: dict[int, list[Any]] = {}
    for record in records:
        partitions.setdefault(record.partition, []).append(record)
    written = list(items)
    for record, at_ms in written[: len(SOLD)]:
        core.catalog.take(record.key.decode(), decode_item(record.value, record.key), record.offset, at_ms)
    folded: dict[int, dict[bytes, Profile]] = {}
    outputs: list[Output] = []
    for partition, mine in partitions.items():
        rows = folded[partition] = {}
        outputs += core.process(mine, EVENTS, partition, rows, now_ms=now_ms, acked_offset=0).outputs
    for record, at_ms in written[len(SOLD) :]:
        item = decode_item(record.value, record.key)
        changes.append(core.catalog.take(record.key.decode(), item, record.offset, at_ms))
    told = [change for change in changes if change is not None]
    for partition, rows in folded.items():
        end = partitions[partition][-1].offset + 1
        for offer in (Offer(wished=told), Offer(affine=told, affine_end=told[-1].offset)) if told else ():
            offers = dict.fromkeys(rows, offer)
            outputs += core.offer(offers, rows, now_ms=now_ms, mark=end, acked_offset=0).outputs
        while due := [key for key, row in rows.items() if row.due_ms() <= later_ms]:
            outputs += core.fire(due, rows, now_ms=later_ms, mark=end, acked_offset=end).outputs
        states |= {key: compared(row) for key, row in rows.items()}
    for output in outputs:
        said.hear(output.topic, output.value, output.headers)
    return Truth(states, said)
