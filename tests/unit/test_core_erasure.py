"""Erasing a user: what becomes of the row, and what may happen to the user afterwards."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.core.campaign import Trigger
from app.core.erasure import TIDY_MS, is_mark, mark_key
from app.core.profile import FIELDS, Profile, encode_profile
from schemas.decisions import decode_decision
from schemas.erasures import ErasureReceipt, Subjects, decode_receipt
from schemas.events import (
    NOTIFICATION_FAILED,
    NOTIFICATIONS_ENABLED,
    decode_event,
    encode_event,
)
from schemas.topics import DEAD_LETTERS, DECISIONS, ERASURES, EVENTS
from tests.support.plans import HOUR, at_least, campaign, count_feature, make_plan, on_event, segment
from tests.support.streams import START, SUBJECTS, USER, FakeRecord, Stream, identify, record, track

VIEWS = count_feature("Seen")
PLAN = make_plan(
    segments=[at_least(VIEWS, 1, "seen")],
    features=[VIEWS],
    campaigns=[
        campaign("hello", on_event("Order Completed")),
        campaign("cart", Trigger("absence", event="Added", wait_ms=HOUR)),
    ],
)


def erase(
    request: str = "r1", user: str = USER, *, aliases: bool = False, subjects: Subjects = SUBJECTS
) -> dict[str, Any]:
    return msgspec.json.decode(encode_event(subjects.request(user, request, aliases=aliases)))


def lived(stream: Stream) -> Stream:
    """A user with traits, a token, a segment, a timer, a pending label and things owed."""
    context = {"timezone": "Europe/Berlin", "device": {"type": "ios", "token": "canary-token"}}
    stream.send(
        identify(START, email="canary@example.org"),
        track("Seen", START, context=context, title="canary-title"),
        track("Added", START),
        track("Order Completed", START, revenue=5),
    )
    row = stream.row
    assert row.segments
    assert row.pending
    assert row.devices
    assert row.outbox
    assert len(row.timers) == 2
    return stream


@pytest.fixture
def stream() -> Stream:
    return Stream(PLAN)


def receipt(stream: Stream) -> ErasureReceipt:
    [output] = [output for output in stream.effects.outputs if output.topic == ERASURES]
    found = decode_receipt(output.value or b"")
    assert (output.key or b"").decode() == found.key
    return found


def test_nothing_but_the_mark_is_left_of_the_row(stream: Stream) -> None:
    lived(stream).at(1000).send(erase())
    row = stream.row
    left = {name for name in FIELDS if getattr(row, name) != getattr(Profile(), name)}
    assert left == {"offset", "erased_ms", "timers", "outbox"}
    assert (row.offset, row.erased_ms) == (4, START + 1000)
    assert b"canary" not in encode_profile(row)
    assert stream.effects.moved == {USER.encode()}


def test_the_receipt_says_what_there_was_and_names_nobody(stream: Stream) -> None:
    lived(stream).at(1000).send(erase("request-7"))
    found = receipt(stream)
    assert (found.request, found.part, found.offset, found.at_ms) == ("request-7", "profile", 4, START + 1000)
    assert found.subject == SUBJECTS.of(USER.encode()).hex()
    assert found.erased["rows"] == found.erased["push_tokens"] == found.erased["segments"] == 1
    assert found.erased["pending_labels"] == 1
    assert found.erased["timers"] == 2


def test_readers_of_segments_and_the_sender_are_told(stream: Stream) -> None:
    lived(stream).send(erase())
    assert [(change.segment, change.change, change.reason) for change in stream.changes[-1:]] == [
        ("seen", "leave", "erased")
    ]
    [told] = [decode_decision(o.value or b"") for o in stream.effects.outputs if o.topic == DECISIONS]
    assert (told.action, told.reason, told.user) == ("suppress", "erased", USER)
    assert stream.effects.members == {"seen": -1}


def test_an_erased_user_is_not_notified_of_what_was_waiting(stream: Stream) -> None:
    lived(stream).send(erase())
    sends = len(stream.sends)
    stream.at(100 * HOUR).fire(USER)
    assert len(stream.sends) == sends
    assert stream.effects.changed == {}


@pytest.mark.parametrize(
    "message",
    [
        track("Order Completed", START + 2000),
        track(NOTIFICATION_FAILED, START + 2000, decisionId="d"),
        track(NOTIFICATIONS_ENABLED, START + 500),
        track(NOTIFICATIONS_ENABLED, START + 2000, category="promo"),
        identify(START + 2000, email="canary@example.org"),
        track("Order Completed", START + 10**12),
    ],
)
def test_what_comes_after_without_a_new_consent_leaves_no_trace(stream: Stream, message: dict[str, Any]) -> None:
    lived(stream).at(1000).send(erase())
    before = encode_profile(stream.row)
    stream.at(3000).send(message)
    assert stream.effects.counts["events", "erased"] == 1
    assert (stream.effects.changed, stream.effects.outputs) == ({}, [])
    assert encode_profile(stream.row) == before


def test_a_new_consent_makes_a_new_row(stream: Stream) -> None:
    lived(stream).at(1000).send(erase())
    stream.at(3000).send(track(NOTIFICATIONS_ENABLED, START + 2000), track("Order Completed", START + 2500))
    row = stream.row
    assert (row.erased_ms, row.consent, row.events, row.orders) == (0, 1, 2, 1)
    assert (row.traits, row.devices, row.segments) == ({}, {}, {})
    assert stream.effects.moved == {USER.encode()}
    assert len(stream.sends) == 2


def test_those_who_come_back_share_nothing(stream: Stream) -> None:
    """A row that was made anew in place must not hold another's containers: checked without decoding in between."""
    users = ("u1", "u2")
    messages = [track("Seen", START, user) for user in users] + [erase(f"r-{user}", user) for user in users]
    messages += [track(NOTIFICATIONS_ENABLED, START + 5, user) for user in users]
    records = [record(message, n) for n, message in enumerate(messages)]
    rows: dict[bytes, Profile] = {}
    stream.processor.process(records[:4], "events", 0, rows, now_ms=START, acked_offset=0)
    stream.processor.process(records[4:], "events", 0, rows, now_ms=START + 10, acked_offset=0)
    one, two = (rows[user.encode()] for user in users)
    assert one.consent == two.consent == 1
    shared = [
        name
        for name in FIELDS
        if isinstance(getattr(one, name), dict | list) and getattr(one, name) is getattr(two, name)
    ]
    assert not shared


def test_a_replay_of_everything_before_the_request_changes_nothing(stream: Stream) -> None:
    lived(stream).at(1000).send(erase())
    stream.process(stream.log)
    assert stream.effects.counts == {("events", "replayed"): 5}


def test_a_user_nobody_knows_can_be_erased_and_stays_so(stream: Stream) -> None:
    stream.send(erase())
    assert receipt(stream).erased == {}
    stream.at(10).send(track("Seen", START + 10))
    assert stream.effects.counts["events", "erased"] == 1


def test_a_request_that_is_not_signed_with_our_key_is_buried_and_the_row_stays(stream: Stream) -> None:
    lived(stream)
    before = stream.row.traits
    stream.send(erase(subjects=Subjects(b"another")), erase(""), {**erase(), "properties": {}})
    assert stream.row.traits == before
    assert stream.effects.counts["dead_letters", "erase_refused"] == 3
    assert {output.topic for output in stream.effects.outputs} == {DEAD_LETTERS}


def test_a_signature_holds_for_its_user_and_its_options_only() -> None:
    signed = SUBJECTS.request("u1", "r1")
    assert SUBJECTS.requested(signed)
    assert not SUBJECTS.requested(msgspec.structs.replace(signed, user_id="u2"))
    assert not SUBJECTS.requested(msgspec.structs.replace(signed, properties={**signed.properties, "aliases": True}))


def test_aliases_are_erased_where_the_request_says_so(stream: Stream) -> None:
    stream.send({"type": "alias", "userId": USER, "previousId": "device-1"}, erase(aliases=True))
    assert asked_to_erase(stream) == [b"device-1"]
    other = Stream(PLAN)
    other.send({"type": "alias", "userId": USER, "previousId": "device-1"}, erase())
    assert asked_to_erase(other) == []


def test_what_was_merged_into_the_row_is_erased_with_it(stream: Stream) -> None:
    stream.send(track("Go", START, "device-1"))
    stream.send({"type": "alias", "userId": USER, "previousId": "device-1"})
    for _ in range(2):  # the request to merge, and the row
        for output in [output for output in stream.effects.outputs if output.topic == EVENTS]:
            stream.process([FakeRecord(output.key, output.value, 100 + len(stream.outputs))])
    assert stream.rows[b"device-1"].merged_into == USER
    stream.process([record(erase(), 500)])
    assert asked_to_erase(stream) == [b"device-1"]


def asked_to_erase(stream: Stream) -> list[bytes | None]:
    """Who else the engine asked itself to erase, with a signature of its own."""
    outputs = [output for output in stream.effects.outputs if output.topic == EVENTS]
    events = [(output.key, decode_event(output.value, output.key)) for output in outputs]
    return [key for key, event in events if SUBJECTS.requested(event)]  # type: ignore[arg-type]


def test_a_mark_drops_what_it_owed_once_it_is_acknowledged(stream: Stream) -> None:
    lived(stream).send(erase())
    key = mark_key(SUBJECTS, USER.encode())
    assert is_mark(key)
    assert not is_mark(USER.encode())
    assert stream.effects.due[-1] == (START + TIDY_MS, key)
    rows = {key: stream.row}
    fire = stream.processor.fire
    effects = fire([key], rows, now_ms=START + TIDY_MS, mark=9, acked_offset=4)
    assert effects.due == [(START + 2 * TIDY_MS, key)], "not acknowledged yet: look again"
    effects = fire([key], rows, now_ms=START + 2 * TIDY_MS, mark=9, acked_offset=5)
    assert (rows[key].outbox, rows[key].timers, effects.due) == ([], [], [])
    assert USER.encode() not in encode_profile(rows[key])


def test_a_mark_whose_user_raises_on_returning_stays_a_mark_and_owes_the_dead_letter() -> None:
    def broken(profile: Profile) -> bool:
        return bool(1 / (1 - profile.consent))

    stream = Stream(make_plan(segments=[segment("broken", broken, NOTIFICATIONS_ENABLED)]))
    stream.send(track("Seen", START), erase())
    stream.at(1000).send(track(NOTIFICATIONS_ENABLED, START + 1000))
    assert stream.effects.counts["dead_letters", "processing_failed"] == 1
    assert (stream.row.erased_ms, stream.row.events, stream.row.offset) == (START, 0, 2)
    assert stream.effects.moved == {USER.encode()}
    assert stream.effects.due[-1][1] == mark_key(SUBJECTS, USER.encode()), "it names the user: to be tidied"
    assert stream.row.outbox[-1].output.topic == DEAD_LETTERS
