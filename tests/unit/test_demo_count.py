from collections import Counter
from dataclasses import dataclass, field

import pytest

from app.core.activity import Activity
from app.core.profile import Profile, encode_profile
from app.core.row_parts import Propensity
from app.demo.count import Tally
from schemas.dead_letters import DeadLetter, dead_letter_headers
from schemas.decisions import Decision, encode_decision
from schemas.events import Event, encode_event
from schemas.outcomes import Outcome, encode_outcome
from schemas.segments import MembershipChange, encode_membership


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = b"u"
    offset: int = 0
    partition: int = 0
    timestamp: int = 1000
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def event(offset: int, message: str, name: str = "Product Viewed", **properties: object) -> Record:
    made = Event(type="track", event=name, user_id="u", message_id=message, timestamp=1, properties=properties)
    return Record(encode_event(made), offset=offset)


def row(offset: int, events: int) -> Record:
    return Record(encode_profile(Profile(offset=offset, events=events)))


def dead(offset: int, reason: str = "malformed_json") -> Record:
    letter = DeadLetter(topic="events", partition=0, offset=offset, reason=reason, detail="", at_ms=1)
    return Record(b"?", headers=dead_letter_headers(letter))


def tally(*events: Record) -> Tally:
    made = Tally()
    for record in events:
        made.event(record)
    return made


ACKNOWLEDGED = [[range(3)]]


def three() -> Tally:
    return tally(event(0, "a"), event(1, "b"), event(2, "c"))


def test_all_applied_is_nothing_lost_and_nothing_twice():
    made = three()
    made.row(row(2, 3))
    verdict = made.judge(ACKNOWLEDGED)
    assert (verdict.lost, verdict.duplicates, made.behind(ACKNOWLEDGED)) == (0, 0, 0)


def test_only_the_newest_row_counts():
    made = three()
    made.row(row(0, 1))
    assert made.behind(ACKNOWLEDGED) == 2
    made.row(row(2, 3))
    assert made.behind(ACKNOWLEDGED) == 0


def test_an_event_that_no_row_has_applied_is_lost():
    made = three()
    made.row(row(1, 2))
    assert made.judge(ACKNOWLEDGED).unfolded == 1
    assert three().judge(ACKNOWLEDGED).unfolded == 3


def test_an_event_skipped_in_the_middle_is_lost():
    made = three()
    made.row(row(2, 2))
    assert made.judge(ACKNOWLEDGED).unfolded == 1


def test_a_double_application_is_counted():
    made = three()
    made.row(row(2, 4))
    verdict = made.judge(ACKNOWLEDGED)
    assert (verdict.folded_twice, verdict.lost) == (1, 0)


def test_a_message_that_came_twice_must_be_applied_once():
    made = tally(event(0, "a"), event(1, "a"), event(2, "b"))
    made.row(row(2, 2))
    assert made.judge(ACKNOWLEDGED).duplicates == 0
    made.row(row(2, 3))
    assert made.judge(ACKNOWLEDGED).folded_twice == 1


def test_a_refused_record_must_be_dead_lettered():
    made = tally(event(0, "a"), Record(b"{", offset=1), event(2, "b"))
    made.row(row(2, 2))
    assert made.judge(ACKNOWLEDGED).undead == 1
    made.dead_letter(dead(1))
    made.dead_letter(dead(1))
    assert made.judge(ACKNOWLEDGED).lost == 0
    assert made.dead_letters == {"malformed_json": 1}


def test_a_readable_event_in_the_dead_letters_is_not_expected_in_a_row():
    made = three()
    made.dead_letter(dead(1, "timestamp_in_future"))
    made.row(row(2, 2))
    verdict = made.judge(ACKNOWLEDGED)
    assert (verdict.lost, verdict.duplicates) == (0, 0)


def test_an_acknowledged_record_that_the_topic_does_not_hold_is_lost():
    made = three()
    made.row(row(2, 3))
    assert made.judge([[range(5)]]).vanished == 2


def test_what_was_acknowledged_but_not_read_yet_keeps_the_drain_waiting():
    made = three()
    made.row(row(2, 3))
    assert made.behind([[range(5)]]) == 2


def test_receipts_after_our_last_event_are_not_waited_for():
    made = three()
    made.event(event(3, "d:sent", "Notification Sent", decisionId="d"))
    made.row(row(2, 3))
    assert made.behind(ACKNOWLEDGED) == 0
    assert made.judge(ACKNOWLEDGED).lost == 0
    assert made.sends == 1


@pytest.mark.parametrize(("receipts", "delivered"), [(2, {"d": 1}), (1, {"d": 2}), (2, {"d": 2})])
def test_a_double_delivery_is_counted_once(receipts, delivered):
    sent = [event(i, "d:sent", "Notification Sent", decisionId="d") for i in range(receipts)]
    made = tally(*sent)
    made.row(row(0, 1))
    assert made.judge([[range(receipts)]], Counter(delivered)).sent_twice == 1


def test_a_decision_emitted_again_counts_once():
    made = Tally()
    decision = Decision(id="x", user="u", action="suppress", campaign="c", category="k", decided_ms=1, reason="consent")
    for _ in range(2):
        made.decision(Record(encode_decision(decision)))
    assert made.suppressed == {"consent": 1}
    assert made.repeated_decisions == 1


def test_latency_is_between_the_records_whichever_is_read_first():
    made = Tally()
    for offset, at in ((0, 1030), (1, 1070)):
        decision = Decision(
            id=f"{offset}", user="u", action="send", campaign="c", category="k", decided_ms=1, source_offset=offset
        )
        made.decision(Record(encode_decision(decision), timestamp=at))
    made.event(event(0, "a"))
    assert made.latencies() == [30]
    made.event(event(1, "b"))
    assert made.latencies() == [30, 70]


def test_a_decision_by_a_timer_has_no_latency():
    made = Tally()
    decision = Decision(id="t", user="u", action="send", campaign="c", category="k", decided_ms=1)
    made.decision(Record(encode_decision(decision)))
    assert made.latencies() == []
    assert made.decisions_sent == 1


def test_segment_sizes_follow_enter_and_leave():
    made = Tally()
    for number, (user, change) in enumerate([("a", "enter"), ("b", "enter"), ("a", "enter"), ("b", "leave")]):
        moved = MembershipChange(id=str(number), user=user, segment="s", change=change, at_ms=1, cause="event")
        made.membership(Record(encode_membership(moved)))
    assert made.segment_sizes() == {"s": 1}


def test_an_outcome_counts_once():
    made = Tally()
    outcome = Outcome(
        id="x", model="open", label=1, features={}, score=0.3, model_version=1, campaign="c", decided_ms=5, matured_ms=9
    )
    for _ in range(2):
        made.outcome(Record(encode_outcome(outcome)))
    assert made.examples == {"x": (0.3, 1, 5)}


def test_personas_are_those_of_the_newest_rows():
    made = three()
    made.event(Record(event(0, "d").value.replace(b'"u"', b'"v"'), key=b"v", offset=9))
    assert made.personas() == {}
    for key, name in ((b"u", "old"), (b"v", "night owls"), (b"u", "night owls")):
        state = Propensity(Activity(), persona=1, persona_name=name)
        made.row(Record(encode_profile(Profile(propensity=state)), key=key))
    assert made.personas() == {"night owls": 2}


def test_decisions_to_send_are_counted_by_campaign_once():
    made = Tally()
    for name, action in (("a", "send"), ("b", "send"), ("b", "send"), ("c", "suppress")):
        made.decision(Record(encode_decision(
            Decision(id=name, user="u", action=action, campaign="cart", category="k", decided_ms=1)
        )))  # fmt: skip
    assert made.by_campaign == {"cart": 2}
