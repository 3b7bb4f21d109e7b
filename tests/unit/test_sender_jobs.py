from __future__ import annotations

import orjson
import pytest

from app.sender.jobs import message_of, read_jobs
from app.sender.receipts import receipt
from schemas.decisions import SUPPRESSED_TYPE, encode_decision
from schemas.events import Event, decode_event, encode_event
from tables.ledger import LedgerEntry, State
from tests.support.sender import NOW_MS, FakeRecord, decision, record

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read(*records: FakeRecord):
    jobs, refused = read_jobs("decisions", 3, records, NOW_MS)
    return jobs, [letter for _, letter in refused]


def test_a_suppressed_decision_is_skipped_by_its_header_without_being_decoded() -> None:
    unreadable = FakeRecord(b"u", b"not json", 0, headers=[("ce_type", SUPPRESSED_TYPE.encode())])
    assert read(unreadable) == ([], [])


def test_a_suppressed_decision_without_headers_is_skipped_too() -> None:
    made = decision(action="suppress", content=None)
    assert read(FakeRecord(b"u0", encode_decision(made), 0)) == ([], [])


def test_two_records_of_one_id_are_one_job_at_the_lower_offset() -> None:
    jobs, _ = read(record(4, decision()), record(9, decision()))
    assert [job.offset for job in jobs] == [4]


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (None, b"u0", "empty"),
        (b"", b"u0", "empty"),
        (b"{", b"u0", "malformed_json"),
        (b"\xff\xfe", b"u0", "malformed_json"),
        (b'{"token":{"a":' + b"[" * 100_000, b"u0", "malformed_json"),
        (b"[]", b"u0", "invalid_field"),
        (b"{}", b"u0", "invalid_field"),
        (encode_decision(decision(content=None)), b"u0", "invalid_field"),
        (encode_decision(decision(id="")), b"u0", "invalid_field"),
        (encode_decision(decision(id="a\r\nx-evil: 1")), b"u0", "invalid_field"),
        (encode_decision(decision(id="a" * 129)), b"u0", "invalid_field"),
        (encode_decision(decision()), b"u1", "key_mismatch"),
        (encode_decision(decision()), None, "key_mismatch"),
    ],
)
def test_what_is_no_decision_is_refused_with_a_reason_and_its_neighbour_is_not(
    value: bytes | None, key: bytes | None, reason: str
) -> None:
    jobs, letters = read(FakeRecord(key, value, 17), record(18, decision(1)))
    assert [(letter.reason, letter.offset, letter.partition) for letter in letters] == [(reason, 17, 3)]
    assert [job.offset for job in jobs] == [18]


@pytest.mark.parametrize("field", ["action", "id", "user", "campaign", "decidedMs", "content", "data"])
@pytest.mark.parametrize("planted", ["canary-4711", 4711, ["canary-4711"]])
def test_a_refusal_repeats_nothing_of_the_record(field: str, planted: object) -> None:
    fields = orjson.loads(encode_decision(decision()))
    target = fields["content"] if field == "data" else fields
    target[field] = planted
    _, letters = read(FakeRecord(b"u0", orjson.dumps(fields), 0))
    assert "4711" not in "".join(letter.detail for letter in letters)


def test_the_trace_is_passed_on_only_if_it_is_one() -> None:
    jobs, _ = read(record(0, decision(0), traceparent=TRACE), record(1, decision(1), traceparent=b"x\r\ny"))
    assert [job.traceparent for job in jobs] == [TRACE, b""]
    assert message_of(jobs[0]).traceparent == TRACE.decode()


@pytest.mark.parametrize(
    ("state", "name", "suffix"),
    [
        (State.SENT, "Notification Sent", "sent"),
        (State.FAILED, "Notification Failed", "failed"),
        (State.UNKNOWN, "Notification Failed", "failed"),
    ],
)
def test_a_receipt_is_an_event_that_the_worker_accepts(state: State, name: str, suffix: str) -> None:
    made = decision()
    entry = LedgerEntry(state, 0, 0, event_ms=NOW_MS + 5, provider="fake", reason="" if suffix == "sent" else "why")
    event = decode_event(encode_event(receipt(made, entry)), b"u0")
    assert isinstance(event, Event)
    assert (event.event, event.message_id, event.timestamp) == (name, f"{made.id}:{suffix}", NOW_MS + 5)
    told = {"decisionId": made.id, "campaign": "welcome", "category": "news", "variant": "a", "provider": "fake"}
    assert event.properties == (told if suffix == "sent" else told | {"reason": "why"})


def test_a_reservation_has_no_receipt() -> None:
    with pytest.raises(AssertionError):
        receipt(decision(), LedgerEntry(State.RESERVED, 0, 0))
