"""A script that is faster than a person teaches nothing."""

from __future__ import annotations

import pytest

from app.core.influence import BURST_EVENTS_MAX, is_quarantined
from app.core.profile import Profile
from app.core.row_parts import Pending
from schemas.events import NOTIFICATION_OPENED, NOTIFICATION_SENT
from tests.support.plans import MINUTE, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track

SECOND = 1_000


def pending(events: int, decided_ms: int = START) -> Pending:
    return Pending("d", "hello", "a", decided_ms, 0, 0.3, 1, 1.0, b"", events=events)


@pytest.mark.parametrize(
    ("events_since", "seconds", "expected"),
    [
        (BURST_EVENTS_MAX, 0, False),
        (BURST_EVENTS_MAX + 1, 0, True),
        (BURST_EVENTS_MAX + 3600, 3600, False),
        (BURST_EVENTS_MAX + 3601, 3600, True),
    ],
)
def test_beyond_a_pace_that_no_person_has_nothing_is_taught(events_since: int, seconds: int, expected: bool) -> None:
    row = Profile(events=100 + events_since)
    assert is_quarantined(row, pending(100), START + seconds * SECOND) == expected


def test_a_label_of_before_the_pace_was_noted_counts() -> None:
    assert not is_quarantined(Profile(events=10**9), pending(-1), START)


def test_a_user_who_does_a_thousand_things_before_opening_is_quarantined() -> None:
    stream = Stream(make_plan(campaigns=[campaign("hello", on_event("Order Completed"))]))
    stream.send(track("Order Completed", START))
    answered = {"decisionId": stream.sends[-1].id}
    stream.at(MINUTE).send(*(track("Seen", START + MINUTE) for _ in range(1000)))
    stream.send(track(NOTIFICATION_SENT, START, **answered), track(NOTIFICATION_OPENED, START + MINUTE, **answered))
    assert stream.outcomes == []
    assert stream.effects.counts["outcomes", "quarantined"] == 1
