"""Opens after the horizon: the example that said "not opened" is taken back, once, and the model is right."""

from __future__ import annotations

import random

import msgspec
import pytest

from app.core.answers import SILENT_MAX
from app.core.row_parts import SILENT
from app.learning.kinds import KINDS
from app.learning.learner import Learner
from schemas.events import NOTIFICATION_OPENED, NOTIFICATION_SENT
from schemas.outcomes import LATE_OPEN, Outcome
from tests.support.plans import DAY, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track


@pytest.fixture
def stream() -> Stream:
    stream = Stream(make_plan(campaigns=[campaign("hello", on_event("Go"))], late_opens_ms=3 * DAY))
    stream.send(track("Go", START))
    stream.send(track(NOTIFICATION_SENT, START, decisionId=stream.sends[-1].id))
    return stream


def open_at(stream: Stream, ms: int) -> None:
    stream.at(ms).fire()
    stream.send(track(NOTIFICATION_OPENED, START + ms, decisionId=stream.sends[-1].id))


def test_a_late_open_takes_its_example_back_with_the_same_features_once(stream: Stream) -> None:
    open_at(stream, 2 * DAY)
    open_at(stream, 2 * DAY + 5)
    first, late = stream.outcomes
    assert (first.label, late.label) == (0, LATE_OPEN)
    assert (late.id, late.features, late.score) == (first.id, first.features, first.score)
    assert (stream.row.opened, stream.row.ignored_run) == (1, 0)
    stream.at(9 * DAY).fire()
    assert stream.row.pending == []
    assert len(stream.outcomes) == 2


def test_after_the_late_time_nothing_is_kept_and_nothing_taken_back(stream: Stream) -> None:
    stream.at(2 * DAY).fire()
    assert [pending.answered for pending in stream.row.pending] == [SILENT]
    stream.at(4 * DAY + 1).fire()
    assert (stream.row.pending, stream.row.timers) == ([], [])
    open_at(stream, 5 * DAY)
    assert [outcome.label for outcome in stream.outcomes] == [0]
    assert stream.effects.counts["outcomes", "censored"] == 0


def test_few_decisions_wait_for_a_late_open(stream: Stream) -> None:
    for number in range(1, 2 * SILENT_MAX):
        stream.at(number).send(track("Go", START + number))
        stream.send(track(NOTIFICATION_SENT, START + number, decisionId=stream.sends[-1].id))
    stream.at(2 * DAY).fire()
    assert [pending.answered for pending in stream.row.pending] == [SILENT] * SILENT_MAX
    assert len(stream.row.timers) == SILENT_MAX
    assert [outcome.label for outcome in stream.outcomes] == [0] * 2 * SILENT_MAX


def test_without_the_option_nothing_waits() -> None:
    stream = Stream(make_plan(campaigns=[campaign("hello", on_event("Go"))]))
    stream.send(track("Go", START))
    stream.send(track(NOTIFICATION_SENT, START, decisionId=stream.sends[-1].id))
    stream.at(2 * DAY).fire()
    assert stream.row.pending == []


def taught(kind: str, *, correct: bool, count: int = 6_000) -> tuple[Learner, float]:
    """A learner of sends of which 30 % are opened in time and 20 % late, and what it says of the next."""
    rng = random.Random(1)
    learner = Learner("open", kind)
    score = 0.15
    for number in range(count):
        draw = rng.random()
        outcome = Outcome(
            id=f"d{number}",
            model="open",
            label=int(draw < 0.3),
            features={"c=a": 1.0},
            score=score,
            model_version=0,
            campaign="a",
            decided_ms=0,
            matured_ms=0,
        )
        learner.learn(outcome)
        if number % 100 == 0:
            score = learner.model.predict_proba_one({"c=a": 1.0})
        if correct and 0.3 <= draw < 0.5:
            late = msgspec.structs.replace(outcome, label=LATE_OPEN)
            assert learner.learn(late)
            assert not learner.learn(late)
    return learner, learner.model.predict_proba_one({"c=a": 1.0})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "open-ftrl"])
def test_with_late_opens_taken_back_every_model_says_what_is_opened_in_the_end(kind: str) -> None:
    assert taught(kind, correct=False)[1] == pytest.approx(0.3, abs=0.05)
    assert taught(kind, correct=True)[1] == pytest.approx(0.5, abs=0.05)


def test_an_example_that_was_taken_back_is_judged_once_as_opened() -> None:
    learner, _ = taught("open-lr", correct=True)
    metrics = learner.metrics()
    assert metrics["examples"] == 6_000
    assert metrics["positives"] == pytest.approx(3_000, abs=150)
    assert metrics["corrected"] == pytest.approx(1_200, abs=100)
    assert metrics["calibration_ratio"] == pytest.approx(1.0, abs=0.05)
    assert Learner.restore(learner.snapshot(1, 1, 0)).snapshot(1, 1, 0) == learner.snapshot(1, 1, 0)
