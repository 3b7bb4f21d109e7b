"""Whatever stands on a topic: it is read or refused with a reason, raises nothing, and harms no neighbour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.features import open_features
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from app.policy.load import load_policy
from app.sender.jobs import message_of, read_jobs
from schemas.decisions import Decision, decode_decision, encode_decision
from schemas.events import REASONS, Event, Rejected, decode_event
from schemas.topics import DEAD_LETTERS
from tests.support.plans import FixedScorer
from tests.support.sender import FakeRecord as DecisionRecord
from tests.support.sender import decision
from tests.support.streams import START, SUBJECTS, FakeRecord, Stream, track

ROOT = Path(__file__).parents[2]
SHOP = load_policy(ROOT / "policies" / "shop.yaml")
EXAMPLES = [json.loads(path.read_text()) for path in sorted((ROOT / "schemas" / "examples").glob("event-*.json"))]
CANARY = "canary-7f3a"
NUMBERS = st.one_of(
    st.integers(-(2**80), 2**80), st.floats(), st.sampled_from([2**63, 2**64 - 1, -(2**63) - 1, 1e308, -0.0, 5e-324])
)
TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from([CANARY, "", "\x00", "\ud800", "\u202e", "é" * 300, "{{ 1 }}", "$"])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)
FIELDS = ("type", "event", "userId", "anonymousId", "messageId", "timestamp", "sentAt", "previousId", "context",
          "properties", "traits")  # fmt: skip
INNER = ("cart_id", "category", "price", "revenue", "products", "quantity", "decisionId", "timezone", "device", "token",
         "subscription", "locale", "location", "plan", "consent")  # fmt: skip


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """An example of the contract with some of its fields replaced by anything at all."""
    message = dict(draw(st.sampled_from(EXAMPLES))["value"])
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        message[name] = draw(VALUES)
    for outer in ("properties", "context", "traits"):
        if isinstance(message.get(outer), dict):
            message[outer] = message[outer] | draw(st.dictionaries(st.sampled_from(INNER), VALUES, max_size=3))
    return json.dumps(message).encode("utf-8", "surrogatepass")


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """The same with some of its bytes changed, cut off, or said twice."""
    raw = bytearray(draw(hostile()))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        piece = draw(st.binary(max_size=4))
        raw[at : at + draw(st.integers(0, 8))] = piece
    return bytes(raw)


RAW = st.one_of(st.binary(max_size=200), hostile(), broken())


def key_of(raw: bytes) -> bytes:
    """The key that a producer would give the record; a wrong one where the record names nobody."""
    try:
        user = json.loads(raw).get("userId")
        return str(user).encode() or b"u0"
    except (ValueError, AttributeError, UnicodeEncodeError, RecursionError):
        return b"u0"


@settings(max_examples=200)
@given(RAW, st.one_of(st.none(), st.binary(max_size=20)))
def test_an_event_is_read_or_refused_and_the_refusal_quotes_nothing(raw: bytes, key: bytes | None) -> None:
    for given_key in (key, key_of(raw)):
        found = decode_event(raw, given_key)
        if isinstance(found, Rejected):
            assert found.reason in REASONS
            assert CANARY not in found.detail
            assert len(found.detail) < 300
        else:
            assert isinstance(found, Event)


def test_nesting_without_end_is_refused() -> None:
    for raw in (b"[" * 200_000, b'{"properties":' * 50_000, b'{"type":"track","properties":{"a":' + b"[" * 100_000):
        found = decode_event(raw, b"u1")
        assert isinstance(found, Rejected)
        assert found.reason in ("malformed_json", "invalid_field")


def neighbours() -> list[FakeRecord]:
    """What somebody else does beside it."""
    messages = [track(name, START, "ann", message_id=f"n{n}", category="DELI", price=3.0) for n, name in
                enumerate(("Product Viewed", "Product Added", "Order Completed"))]  # fmt: skip
    return [FakeRecord(b"ann", json.dumps(message).encode(), 0) for message in messages]


class Shop(Stream):
    """A stream of the shop's policy, compiled once: a processor keeps nothing between two calls."""

    compiled = Processor(SHOP, FixedScorer(), open_features, SUBJECTS)

    def __post_init__(self) -> None:
        self.processor = self.compiled


def row_of(records: list[FakeRecord], user: bytes) -> dict[str, Any]:
    stream = Shop(SHOP)
    for offset, record in enumerate(records):
        record.offset = offset
    stream.process(records)
    for output in stream.outputs:
        reason = dict(output.headers).get("nudge_reason", b"") if output.topic == DEAD_LETTERS else b""
        assert reason != b"processing_failed", output
    for row in stream.rows.values():
        assert encode_profile(decode_profile(encode_profile(row))) == encode_profile(row)
    return comparable(stream.rows[user])


def comparable(row: Profile) -> dict[str, Any]:
    """Of the row what does not depend on the place of the records in their partition."""
    names = ("events", "segments", "affinity", "orders", "revenue_milli", "sent", "device", "consent")
    return {name: getattr(row, name) for name in names}


@settings(max_examples=100)
@given(st.lists(RAW, min_size=1, max_size=6))
def test_a_policy_that_meets_it_fails_nowhere_and_the_neighbour_is_as_if_alone(raws: list[bytes]) -> None:
    strangers = [FakeRecord(key_of(raw), raw, 0) for raw in raws if key_of(raw) != b"ann"]
    beside = [record for pair in zip(neighbours(), strangers, strict=False) for record in pair]
    beside += neighbours()[len(strangers) :] + strangers[3:]
    assert row_of(beside, b"ann") == row_of(neighbours(), b"ann")


@settings(max_examples=100)
@given(st.data())
def test_a_decision_is_read_or_refused_and_its_neighbour_is_sent(data: st.DataObject) -> None:
    good = decision(1)
    message = json.loads(encode_decision(decision(2)))
    for name in data.draw(st.lists(st.sampled_from(sorted(message)), max_size=3)):
        message[name] = data.draw(VALUES)
    raw = json.dumps(message).encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    headers = [("traceparent", data.draw(st.binary(max_size=60))), ("ce_type", data.draw(st.binary(max_size=20)))]
    records = [
        DecisionRecord(key_of(raw), raw, 0, headers=headers),
        DecisionRecord(good.user.encode(), encode_decision(good), 1),
    ]
    jobs, refused = read_jobs("decisions", 0, records, START)
    assert good.id in [job.decision.id for job in jobs]
    assert all(CANARY not in letter.detail for _, letter in refused)
    for job in jobs:
        assert isinstance(decode_decision(encode_decision(job.decision)), Decision)
        assert message_of(job).id == job.decision.id
        assert b"\n" not in job.traceparent
