"""Receipts and answers, and the labels that they mature into."""

from __future__ import annotations

from typing import Any

import pytest

from app.core import timers
from schemas.events import (
    NOTIFICATION_CLICKED,
    NOTIFICATION_DISMISSED,
    NOTIFICATION_FAILED,
    NOTIFICATION_OPENED,
    NOTIFICATION_SENT,
    NOTIFICATIONS_DISABLED,
)
from tests.support.plans import DAY, HOUR, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track


@pytest.fixture
def stream() -> Stream:
    """One decision to send has been made."""
    return decided()


@pytest.fixture
def patient() -> Stream:
    """The same under a policy that lets the examples of opens wait."""
    return decided(opens_wait=True)


def decided(**fields: Any) -> Stream:
    stream = Stream(make_plan(campaigns=[campaign("hello", on_event("Go"))], **fields))
    stream.send(track("Go", START))
    return stream


def answer(stream: Stream, name: str, after_ms: int) -> None:
    stream.at(after_ms).send(track(name, START + after_ms, decisionId=stream.sends[0].id))


def test_an_open_makes_the_label_one_with_what_the_model_saw(stream: Stream) -> None:
    answer(stream, NOTIFICATION_SENT, 1000)
    answer(stream, NOTIFICATION_OPENED, 5000)
    (outcome,) = stream.outcomes
    decision = stream.sends[0]
    assert (outcome.id, outcome.label, outcome.matured_ms) == (decision.id, 1, START + 5000)
    assert (outcome.features, outcome.score) == (decision.features, decision.open_probability)
    assert (stream.row.sent, stream.row.opened, stream.row.hours) == (1, 1, {9: 1})


def test_an_open_may_wait_until_its_example_is_as_old_as_that_of_silence(patient: Stream) -> None:
    answer(patient, NOTIFICATION_SENT, HOUR)
    answer(patient, NOTIFICATION_OPENED, 2 * HOUR)
    assert (patient.row.opened, patient.row.labels) == (1, 0b11), "the row counts it at once"
    patient.at(HOUR + DAY - 1).fire()
    assert patient.outcomes == [], "the horizon counts from the sending"
    patient.at(HOUR + DAY).fire()
    (outcome,) = patient.outcomes
    assert (outcome.label, outcome.features) == (1, patient.sends[0].features)
    assert (patient.row.pending, patient.row.timers, patient.row.labels) == ([], [], 0b11)


def test_an_open_after_the_horizon_waits_and_is_no_positive_label_either(patient: Stream) -> None:
    answer(patient, NOTIFICATION_SENT, 0)
    answer(patient, NOTIFICATION_OPENED, DAY + 1)
    patient.at(3 * DAY).fire()
    assert [outcome.label for outcome in patient.outcomes] == [0]
    assert (patient.row.opened, patient.row.ignored_run, patient.row.labels) == (1, 0, 0b10)


def test_silence_makes_the_label_zero_when_the_horizon_ends_and_not_before(stream: Stream) -> None:
    answer(stream, NOTIFICATION_SENT, HOUR)
    stream.at(DAY).fire()
    assert stream.outcomes == [], "the horizon counts from the sending"
    assert stream.row.due_ms() == START + HOUR + DAY
    stream.at(HOUR + DAY).fire()
    assert [outcome.label for outcome in stream.outcomes] == [0]
    assert (stream.row.pending, stream.row.timers, stream.row.ignored_run) == ([], [], 1)


def test_what_was_never_sent_is_no_example(stream: Stream) -> None:
    effects = stream.at(DAY).fire()
    assert effects.counts["outcomes", "censored"] == 1
    assert (stream.outcomes, stream.row.pending) == ([], [])


def test_what_failed_is_no_example_and_leaves_no_timer(stream: Stream) -> None:
    answer(stream, NOTIFICATION_FAILED, 1000)
    assert (stream.row.pending, stream.row.timers, stream.row.sent) == ([], [], 0)
    assert stream.outcomes == []


def test_an_open_counts_once(stream: Stream) -> None:
    answer(stream, NOTIFICATION_SENT, 1000)
    answer(stream, NOTIFICATION_OPENED, 5000)
    answer(stream, NOTIFICATION_OPENED, 6000)
    stream.at(2 * DAY).fire()
    assert [outcome.label for outcome in stream.outcomes] == [1]
    assert (stream.row.opened, stream.row.pending) == (1, [])


def test_an_open_that_overtakes_its_receipt_counts_as_sent_once(stream: Stream) -> None:
    answer(stream, NOTIFICATION_OPENED, 5000)
    answer(stream, NOTIFICATION_SENT, 1000)
    assert (stream.row.sent, stream.row.opened) == (1, 1)
    assert [outcome.label for outcome in stream.outcomes] == [1]


def test_an_open_after_the_horizon_is_an_open_but_not_a_positive_label(stream: Stream) -> None:
    answer(stream, NOTIFICATION_SENT, 0)
    answer(stream, NOTIFICATION_OPENED, DAY + 1)
    stream.at(3 * DAY).fire()
    assert [outcome.label for outcome in stream.outcomes] == [0]
    assert (stream.row.opened, stream.row.ignored_run) == (1, 0)


def test_an_open_of_an_unknown_decision_counts_without_a_label(stream: Stream) -> None:
    stream.send(track(NOTIFICATION_OPENED, START, decisionId="from elsewhere"), track(NOTIFICATION_OPENED, START))
    assert (stream.row.opened, stream.outcomes) == (2, [])


def test_an_open_ends_the_run_of_ignored_ones(stream: Stream) -> None:
    stream.row.ignored_run = 5
    answer(stream, NOTIFICATION_OPENED, 5000)
    assert stream.row.ignored_run == 0


def test_clicks_and_dismissals_are_counted(stream: Stream) -> None:
    answer(stream, NOTIFICATION_CLICKED, 1)
    answer(stream, NOTIFICATION_DISMISSED, 2)
    assert (stream.row.clicked, stream.row.dismissed) == (1, 1)


def test_an_answer_of_wrong_types_harms_nothing(stream: Stream) -> None:
    odd: list[Any] = [None, 5, [], {"a": 1}]
    effects = stream.send(*[track(NOTIFICATION_SENT, START, decisionId=value) for value in odd])
    assert effects.counts["events", "applied"] == len(odd)


def test_the_oldest_open_question_gives_way_with_its_timer(stream: Stream) -> None:
    limit = timers.LIMITS[timers.HORIZON]
    stream.send(*[track("Go", START + n) for n in range(limit)])
    assert len(stream.row.pending) == len(stream.row.timers) == limit
    assert {pending.id for pending in stream.row.pending} == {timer.key for timer in stream.row.timers}
    assert stream.sends[0].id not in {pending.id for pending in stream.row.pending}


def test_a_waiting_label_that_gives_way_is_censored_although_it_was_opened(patient: Stream) -> None:
    answer(patient, NOTIFICATION_SENT, 0)
    answer(patient, NOTIFICATION_OPENED, 1)
    limit = timers.LIMITS[timers.HORIZON]
    effects = patient.send(*[track("Go", START + n) for n in range(limit)])
    assert effects.counts["outcomes", "censored"] == 1


def test_of_a_user_with_many_examples_a_share_goes_out_and_nothing_after_what_did_not(stream: Stream) -> None:
    stream.row.examples = [8e9, float(START)]
    answer(stream, NOTIFICATION_OPENED, 0)
    stream.send(track(NOTIFICATIONS_DISABLED, START + 1))
    stream.at(DAY * 9).fire()
    assert stream.outcomes == []
    assert (stream.row.opened, stream.row.pending) == (1, []), "the row counts it"
