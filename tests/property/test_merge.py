"""Anonymous becomes known: whatever the order and however often it is said, one row knows what both did, once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import merge_rows, timers
from app.core.processor import Processor
from app.core.profile import FIELDS, Profile, decode_profile, encode_profile
from app.core.row_parts import Output, Pending, Timer
from app.policy.load import load_policy_text
from schemas.dead_letters import read_dead_letter
from schemas.segments import decode_membership
from schemas.topics import DEAD_LETTERS, EVENTS, SEGMENTS
from tests.support.plans import FixedScorer, campaign_only
from tests.support.streams import START, SUBJECTS, FakeRecord, identify, record, track

PLAN = load_policy_text(
    """
version: "1"
name: merge
segments:
  - {name: viewers, when: 'count("View", "6h") >= 3'}
  - {name: buyers, when: 'sum("Order Completed.revenue", "30d") >= 10'}
  - {name: choosers, when: 'distinct("View.item", "24h") >= 3'}
  - {name: quick, when: 'followed_by("View", "Order Completed", "2h")'}
  - {name: quiet, when: 'not did("View", "7d")'}
"""
)
HOUR = 3_600_000
NOW = START + 24 * HOUR


class Log:
    """A topic of one partition whose outputs to itself come back, each `copies` times, as after a crash."""

    def __init__(self, copies: int = 1) -> None:
        self.processor = Processor(PLAN, FixedScorer(), campaign_only, SUBJECTS)
        self.rows: dict[bytes, Profile] = {}
        self.copies = copies
        self.next_offset = 0
        self.outputs: list[Output] = []
        self.dropped_timers = 0

    def write(self, message: dict[str, Any]) -> None:
        key = message.get("userId") or message["anonymousId"]
        self._process(record(message, self.next_offset, key.encode()))

    def _process(self, source: FakeRecord) -> None:
        self.next_offset += 1
        assert self.next_offset < 2_000, "events go round in a circle"
        effects = self.processor.process([source], EVENTS, 0, self.rows, now_ms=NOW, acked_offset=source.offset)
        self.rows.update({key: decode_profile(encode_profile(row)) for key, row in effects.changed.items()})
        self.outputs += effects.outputs
        self.dropped_timers += effects.counts["dropped_timers",]
        for output in effects.outputs:
            if output.topic == EVENTS:
                for _ in range(self.copies):
                    self._process(FakeRecord(output.key, output.value, self.next_offset, 0, tuple(output.headers)))

    def knows(self, user: str) -> dict[str, Any]:
        """What is known of a user, without what tells how it came to be known."""
        row = self.rows[user.encode()]
        assert not row.merged_into
        last = dict(sorted(row.last.items()))
        # Each sum rounds a level to a second, and so may leave another one in another order.
        levels = {name: pytest.approx(level, abs=max(row.events, 1)) for name, level in row.affinity.items()}
        windows = {key: row.features[key] for key in sorted(row.features)}
        return {
            "events": row.events, "traits": row.traits, "last": last, "windows": windows, "orders": row.orders,
            "revenue": row.revenue_milli, "segments": set(row.segments), "first": row.first_ms, "seen": row.seen_ms,
            "consent": row.consent, "affinity": levels,
        }  # fmt: skip

    def members(self) -> dict[str, set[str]]:
        """Who is in which segment, as readers of the topic see it."""
        found: dict[str, set[str]] = {}
        for output in self.outputs:
            if output.topic == SEGMENTS:
                change = decode_membership(output.value or b"")
                group = found.setdefault(change.segment, set())
                (group.add if change.change == "enter" else group.discard)(change.user)
        return {segment: users for segment, users in found.items() if users}


def alias(user: str, previous: str) -> dict[str, Any]:
    return {"type": "alias", "userId": user, "previousId": previous, "timestamp": NOW}


def act(user: str, number: int, step: tuple[str, int, int]) -> dict[str, Any]:
    name, age_hours, item = step
    properties = {"item": item, "revenue": item, "category": f"c{item}"}
    return track(name, NOW - age_hours * HOUR - number, user, message_id=f"m{number}", **properties)


steps = st.tuples(st.sampled_from(["View", "Order Completed"]), st.integers(0, 8), st.integers(1, 4))
acts = st.lists(st.tuples(st.booleans(), steps), max_size=12)


@settings(max_examples=150)
@given(acts, acts, st.integers(1, 3), st.integers(1, 2))
def test_a_merged_user_is_one_who_never_had_two_ids(
    before: list[Any], after: list[Any], copies: int, aliases: int
) -> None:
    merged, single = Log(copies), Log()
    for number, (anonymous, step) in enumerate(before):
        merged.write(act("anon" if anonymous else "kim", number, step))
        single.write(act("kim", number, step))
    for _ in range(aliases):
        merged.write(alias("kim", "anon"))
        single.write(alias("kim", "kim"))
    for number, (anonymous, step) in enumerate(after, start=100):
        merged.write(act("anon" if anonymous else "kim", number, step))
        single.write(act("kim", number, step))
    assert merged.knows("kim") == single.knows("kim")
    assert merged.members() == single.members()


def test_an_identify_with_an_anonymous_id_merges_too() -> None:
    log = Log()
    log.write({"type": "identify", "anonymousId": "anon", "traits": {"plan": "free", "age": 3}, "timestamp": NOW - 9})
    log.write(track("View", NOW, "anon"))
    log.write(identify(NOW - 5, "kim", plan="pro") | {"anonymousId": "anon"})
    assert log.rows[b"kim"].traits == {"plan": "pro", "age": 3}
    assert log.rows[b"kim"].events == 3
    assert log.rows[b"anon"].merged_into == "kim"


def test_a_chain_of_ids_ends_in_one_row() -> None:
    log = Log()
    for user in ("a", "b", "c"):
        log.write(track("View", NOW, user))
    log.write(alias("b", "a"))
    log.write(alias("c", "b"))
    log.write(track("View", NOW, "a"))
    views = next(iter(log.rows[b"c"].features.values()))
    assert views[0] == 4
    assert {log.rows[b"a"].merged_into, log.rows[b"b"].merged_into} == {"b", "c"}


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_ids_that_claim_each_other_end_in_one_row(first: str) -> None:
    second = "b" if first == "a" else "a"
    log = Log()
    for user in ("a", "b"):
        log.write(track("View", NOW, user))
    log.write(alias(first, second))
    log.write(alias(second, first))
    log.write(track("View", NOW, "a"))
    log.write(track("View", NOW, "b"))
    (keeper,) = [row for row in log.rows.values() if not row.merged_into]
    assert next(iter(keeper.features.values()))[0] == 4


def test_of_two_claims_at_once_the_one_that_sorts_first_stays() -> None:
    log = Log()
    claims = []
    for user in ("a", "b"):
        log.write(track("View", NOW, user))
    for user, other in (("a", "b"), ("b", "a")):  # both ask before either is heard
        source = record(alias(user, other), log.next_offset, user.encode())
        log.next_offset += 1
        effects = log.processor.process([source], EVENTS, 0, log.rows, now_ms=NOW, acked_offset=0)
        claims += [output for output in effects.outputs if output.topic == EVENTS]
    for claim in claims:
        log._process(FakeRecord(claim.key, claim.value, log.next_offset))
    assert log.rows[b"b"].merged_into == "a"
    assert not log.rows[b"a"].merged_into
    assert next(iter(log.rows[b"a"].features.values()))[0] == 2


def test_who_comes_second_is_refused() -> None:
    log = Log()
    log.write(track("View", NOW, "shared"))
    log.write(alias("kim", "shared"))
    log.write(alias("lee", "shared"))
    assert log.rows[b"shared"].merged_into == "kim"
    assert log.rows[b"lee"].features == {}


@pytest.mark.parametrize("kind", ["merge", "absorb"])
def test_nobody_but_the_engine_can_merge_rows(kind: str) -> None:
    log = Log()
    log.write(track("View", NOW, "kim"))
    forged = {"into": "thief", "alias": "thief", "row": "AAAA", "signature": "0" * 64}
    log.write({"type": kind, "userId": "kim", "messageId": "x", "properties": forged})
    (letter,) = [output for output in log.outputs if output.topic == DEAD_LETTERS]
    assert read_dead_letter(letter.headers).reason == "merge_refused"
    assert not log.rows[b"kim"].merged_into


def test_a_merge_says_what_becomes_of_every_field() -> None:
    sources = [Path(merge_rows.__file__).with_name(name) for name in ("merge_rows.py", "traits.py")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source.read_text()))]
    spoken = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    computed = {"segments_due_ms"}  # by the judgement that follows
    assert set(FIELDS) - spoken - merge_rows.OF_THE_ROW - computed == set()


def labelled(first: int, count: int) -> Profile:
    row = Profile()
    for number in range(first, first + count):
        at_ms = START + number * HOUR
        row.pending.append(Pending(f"d{number}", "hello", "", at_ms, 0, 0.5, 0, 1.0, b""))
        row.timers.append(Timer(at_ms + HOUR, timers.HORIZON, 0, f"d{number}", 0, at_ms))
    return row


@settings(max_examples=100)
@given(st.integers(0, 32), st.integers(0, 40), st.integers(0, 32))
def test_no_label_waits_in_a_merged_row_without_the_timer_that_matures_it(ours: int, first: int, theirs: int) -> None:
    row, other = labelled(0, ours), labelled(first, theirs)
    ids = {pending.id for pending in (*row.pending, *other.pending)}
    dropped = merge_rows.merge_rows(row, other, {}, NOW)
    kept = [pending.id for pending in row.pending]
    assert set(kept) == {timer.key for timer in row.timers}
    assert len(kept) == len(set(kept)) == len(ids) - dropped == min(len(ids), timers.LIMITS[timers.HORIZON])
    assert row.pending == sorted(row.pending, key=lambda pending: pending.decided_ms)


def test_what_gave_way_in_a_merge_is_counted() -> None:
    log = Log()
    for user, first in (("kim", 0), ("anon", 20)):
        log.write(track("View", NOW, user))
        row = log.rows[user.encode()]
        row.pending, row.timers = (labelled(first, 20).pending, labelled(first, 20).timers)
    log.write(alias("kim", "anon"))
    assert len(log.rows[b"kim"].pending) == timers.LIMITS[timers.HORIZON]
    assert log.dropped_timers == 8
