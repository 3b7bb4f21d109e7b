"""The message contracts: examples survive a round trip, old messages stay readable, bad ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.core.ids import decision_id
from schemas import topics
from schemas.catalog import CatalogItem, decode_item, encode_item
from schemas.dead_letters import BYTES_MAX, DeadLetter, cut, dead_letter_headers, read_dead_letter
from schemas.decisions import Decision, decision_headers, decode_decision, encode_decision
from schemas.erasures import ErasureReceipt, decode_receipt, encode_receipt
from schemas.events import (
    EVENT_BYTES_MAX,
    NAME_CHARS_MAX,
    REASONS,
    USER_CHARS_MAX,
    Event,
    Rejected,
    decode_event,
    encode_event,
    epoch_ms,
)
from schemas.models import BadSignature, ModelSnapshot, decode_snapshot, encode_snapshot
from schemas.outcomes import Outcome, decode_outcome, encode_outcome
from schemas.percentiles import decode_percentiles, encode_percentiles
from schemas.policies import BadPolicyVersion, PolicyVersion, decode_policy_version, encode_policy_version
from schemas.segments import MembershipChange, decode_membership, encode_membership

EXAMPLES = sorted((Path(topics.__file__).parent / "examples").glob("*.json"))
SECRET = b"example"  # what the example snapshot is signed with


def read_item(raw: bytes, key: bytes) -> CatalogItem:
    item = decode_item(raw, key)
    assert isinstance(item, CatalogItem), item
    return item


def read_event(raw: bytes, key: bytes = b"") -> Event:
    event = decode_event(raw, key)
    assert isinstance(event, Event), event
    return event


ROUND_TRIPS: dict[str, Callable[[bytes, bytes], bytes]] = {
    topics.EVENTS: lambda raw, key: encode_event(read_event(raw, key)),
    topics.DECISIONS: lambda raw, _key: encode_decision(decode_decision(raw)),
    topics.SEGMENTS: lambda raw, _key: encode_membership(decode_membership(raw)),
    topics.OUTCOMES: lambda raw, _key: encode_outcome(decode_outcome(raw)),
    topics.MODELS: lambda raw, _key: encode_snapshot(decode_snapshot(raw, SECRET), SECRET),
    topics.POLICY: lambda raw, _key: encode_policy_version(decode_policy_version(raw, SECRET), SECRET),
    topics.DEAD_LETTERS: lambda raw, _key: raw,
    topics.PERCENTILES: lambda raw, _key: encode_percentiles(decode_percentiles(raw)),
    topics.CATALOG: lambda raw, key: encode_item(read_item(raw, key)),
    topics.ERASURES: lambda raw, _key: encode_receipt(decode_receipt(raw)),
}


def example(name: str) -> dict[str, Any]:
    path = next(path for path in EXAMPLES if path.stem == name)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def raw_headers(record: dict[str, Any]) -> list[tuple[str, bytes]]:
    return [(name, value.encode()) for name, value in record["headers"].items()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_survives_a_round_trip(path: Path) -> None:
    record = json.loads(path.read_text())
    raw = json.dumps(record["value"]).encode()
    assert json.loads(ROUND_TRIPS[record["topic"]](raw, record["key"].encode())) == record["value"]


def test_every_topic_with_a_readable_value_has_an_example() -> None:
    binary = {topics.PROFILES_CHANGELOG, topics.LEDGER_CHANGELOG, topics.CLOCK}
    assert {json.loads(path.read_text())["topic"] for path in EXAMPLES} == set(topics.BY_NAME) - binary


@pytest.mark.parametrize("name", ["decision-send", "decision-suppressed", "decision-shadow"])
def test_a_decision_travels_with_cloudevents_headers(name: str) -> None:
    record = example(name)
    decision = decode_decision(json.dumps(record["value"]).encode())
    assert decision_headers(decision) == raw_headers(record)
    assert decision_headers(decision, b"00-ab-cd-01")[-1] == ("traceparent", b"00-ab-cd-01")


def test_a_decision_id_depends_on_each_of_its_parts_and_on_nothing_else() -> None:
    value = example("decision-send")["value"]
    parts = (value["user"], value["campaign"], value["triggerKey"], value["sourceOffset"])
    # A literal in a file: the id must be the same in the next release.
    assert decision_id(*parts) == value["id"]
    others = [("u", *parts[1:]), (parts[0], "c", *parts[2:]), (*parts[:2], "k", parts[3]), (*parts[:3], 0)]
    assert len({decision_id(*other) for other in [parts, *others]}) == 5


def test_dead_letter_headers_can_be_read_back() -> None:
    letter = DeadLetter(topic="events", partition=3, offset=7, reason="empty", detail="no value – none", at_ms=12)
    assert read_dead_letter(dead_letter_headers(letter)) == letter
    record = example("dead-letter")
    assert dead_letter_headers(read_dead_letter(raw_headers(record))) == raw_headers(record)


def test_a_dead_letter_without_a_header_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        read_dead_letter([("nudge_topic", b"events")])


# What a producer of the first release must give. A field added later needs a default, or its messages are refused.
REQUIRED = {
    Event: {"type"},
    Decision: {"id", "user", "action", "campaign", "category", "decidedMs"},
    MembershipChange: {"id", "user", "segment", "change", "atMs", "cause"},
    Outcome: {"id", "model", "label", "features", "score", "modelVersion", "campaign", "decidedMs", "maturedMs"},
    ModelSnapshot: {"model", "version", "partition", "nextOffset", "createdMs", "state", "metrics"},
    ErasureReceipt: {"subject", "request", "part", "atMs", "partition", "offset", "erased"},
}


@pytest.mark.parametrize("contract", list(REQUIRED), ids=lambda contract: contract.__name__)
def test_no_field_was_added_without_a_default(contract: type[msgspec.Struct]) -> None:
    required = {field.encode_name for field in msgspec.structs.fields(contract) if field.required}
    assert required <= REQUIRED[contract]


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != "dead-letter"], ids=lambda path: path.stem)
def test_unknown_fields_are_ignored(path: Path) -> None:
    record = json.loads(path.read_text())
    raw = json.dumps({**record["value"], "addedLater": {"nested": [1]}}).encode()
    assert json.loads(ROUND_TRIPS[record["topic"]](raw, record["key"].encode())) == record["value"]


def track(**fields: Any) -> bytes:
    return json.dumps({"type": "track", "event": "Order Completed", "userId": "u", **fields}).encode()


@pytest.mark.parametrize(
    ("reason", "raw", "key"),
    [
        ("empty", b"", b"u"),
        ("empty", None, b"u"),
        ("too_large", b" " * (EVENT_BYTES_MAX + 1), b"u"),
        ("malformed_json", b"{", b"u"),
        ("malformed_json", b"\xff\xfe", b"u"),
        ("malformed_json", track(properties={"x": "\ud800"}).replace(b"\\ud800", b"\xed\xa0\x80"), b"u"),
        ("malformed_json", b'{"type":"track","properties":{"x":NaN}}', b"u"),
        ("malformed_json", b'{"properties":' + b'{"a":' * 100_000, b"u"),
        ("invalid_field", b"[]", b"u"),
        ("invalid_field", b"{}", b"u"),
        ("invalid_field", track(userId=7), b"u"),
        ("invalid_field", track(timestamp="yesterday"), b"u"),
        ("invalid_field", track(properties=[]), b"u"),
        ("invalid_field", track(userId="u" * (USER_CHARS_MAX + 1)), b"u"),
        ("invalid_field", track(event="e" * (NAME_CHARS_MAX + 1)), b"u"),
        ("unknown_type", track(type="page"), b"u"),
        ("missing_user", track(userId=None), b"u"),
        ("missing_user", track(userId=""), b"u"),
        ("missing_event", track(event=""), b"u"),
        ("missing_key", track(), None),
        ("missing_key", track(), b""),
        ("key_mismatch", track(), b"v"),
    ],
)
def test_a_bad_event_is_refused_with_its_reason(reason: str, raw: bytes | None, key: bytes | None) -> None:
    refused = decode_event(raw, key)
    assert isinstance(refused, Rejected)
    assert refused.reason == reason
    assert reason in REASONS


def test_a_refusal_names_the_field_and_not_what_it_held() -> None:
    refused = decode_event(track(userId=["canary-4711"]), b"u")
    assert isinstance(refused, Rejected)
    assert "userId" in refused.detail
    assert "canary-4711" not in refused.detail


def test_an_anonymous_event_is_keyed_by_its_anonymous_id() -> None:
    assert read_event(track(userId=None, anonymousId="a"), b"a").anonymous_id == "a"


@pytest.mark.parametrize(
    "when",
    [
        1_488_648_069_250,
        datetime(2017, 3, 4, 17, 21, 9, 250_999, tzinfo=UTC),
        datetime(2017, 3, 4, 17, 21, 9, 250_000),  # noqa: DTZ001 - UTC by contract
        datetime(2017, 3, 4, 12, 21, 9, 250_000, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_event_times_become_milliseconds(when: datetime | int) -> None:
    assert epoch_ms(when) == 1_488_648_069_250


def test_event_times_before_1970_are_rounded_down_like_all_others() -> None:
    assert epoch_ms(datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC)) == -1


@pytest.mark.parametrize("field", ["version", "nextOffset", "state", "metrics", "signature"])
def test_a_snapshot_that_was_touched_is_refused(field: str) -> None:
    value = example("model-snapshot")["value"]
    touched: dict[str, Any] = {
        "version": 99,
        "nextOffset": 0,
        "state": "AAAA",
        "metrics": {"auc": 1.0},
        "signature": "",
    }
    raw = json.dumps({**value, field: touched[field]}).encode()
    with pytest.raises(BadSignature, match="'open'"):
        decode_snapshot(raw, SECRET)


def test_a_snapshot_of_another_key_is_refused() -> None:
    raw = json.dumps(example("model-snapshot")["value"]).encode()
    with pytest.raises(BadSignature):
        decode_snapshot(raw, b"another")


def test_topics_that_hold_state_are_compacted_and_the_others_expire() -> None:
    for topic in topics.TOPICS:
        config = topic.config()
        assert config["cleanup.policy"] == topic.cleanup
        assert ("retention.ms" in config) == (topic.cleanup == "delete")
        assert topic.name.endswith("-changelog") <= (topic.cleanup == "compact")


def test_what_is_written_beside_a_user_has_the_partitions_of_the_events() -> None:
    assert {topic.name for topic in topics.TOPICS if topic.key == "user"} == {
        topic.name for topic in topics.TOPICS if topic.partitions == "events"
    } - {topics.LEDGER_CHANGELOG}


def test_a_dead_letter_of_a_huge_record_is_cut_and_says_how_long_it_was() -> None:
    letter = DeadLetter(topic="events", partition=0, offset=7, reason="too_large", detail="", at_ms=1)
    value = b"x" * (BYTES_MAX + 1)
    assert len(cut(value) or b"") == BYTES_MAX
    assert ("nudge_bytes", str(BYTES_MAX + 1).encode()) in dead_letter_headers(letter, value)
    assert cut(b"small") == b"small"
    assert "nudge_bytes" not in dict(dead_letter_headers(letter, b"small"))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"\xff": 1}',
        b'{"id": "\xff", "model": "\xff", "policy": "\xff"}',
        b'{"z": %b%b}' % (b"[" * 100_000, b"]" * 100_000),
    ],
)
@pytest.mark.parametrize(
    "decode",
    [
        decode_decision,
        decode_membership,
        decode_outcome,
        decode_percentiles,
        decode_receipt,
        lambda raw: decode_snapshot(raw, b"key"),
        lambda raw: decode_policy_version(raw, b"key"),
    ],
)
def test_bytes_that_are_no_message_raise_what_is_promised(decode: Callable[[bytes], Any], raw: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, BadPolicyVersion)):
        decode(raw)


def test_a_signature_may_be_any_text() -> None:
    snapshot = ModelSnapshot(
        model="open", version=1, partition=0, next_offset=1, created_ms=0, state=b"", metrics={}, signature="é"
    )
    with pytest.raises(BadSignature):
        decode_snapshot(msgspec.json.encode(snapshot), b"key")
    version = PolicyVersion(policy="shop", serial=1, version="1", text="", author="", at_ms=0, signature="é")
    with pytest.raises(BadPolicyVersion, match="wrong signature"):
        decode_policy_version(msgspec.json.encode(version), b"key")
