"""The propensity benchmark begins and ends the examples that a worker does, and learns none before its time."""

from __future__ import annotations

import heapq
import random

from app.core.plan import ModelPlan
from benchmarks.models_propensity import Example, Happened, Replay, Task
from schemas.events import ORDER_COMPLETED
from tests.support.plans import DAY, HOUR, make_plan
from tests.support.streams import START, Stream, track

MODEL = ModelPlan(kind="constant", event=ORDER_COMPLETED, horizon_ms=3 * DAY)


def history() -> list[Happened]:
    rng = random.Random(3)
    return sorted(
        Happened(START + rng.randrange(20 * DAY), f"u{rng.randrange(6)}", rng.choice(["Viewed", ORDER_COMPLETED]))
        for _ in range(60)
    )


def replayed(events: list[Happened]) -> list[Example]:
    return Replay(Task("", MODEL, HOUR), "UTC", "constant").run(events)


def test_the_examples_are_those_of_a_worker() -> None:
    events = history()
    stream = Stream(make_plan(models={"model": MODEL}))
    due: list[tuple[int, bytes]] = []
    for event in events:
        while due and due[0][0] < event.at_ms:
            at_ms, key = heapq.heappop(due)
            stream.now_ms = at_ms
            for entry in stream.fire(key.decode()).due:
                heapq.heappush(due, entry)
        stream.now_ms = event.at_ms
        for entry in stream.send(track(event.event, event.at_ms, user=event.user)).due:
            heapq.heappush(due, entry)
    expected = [(one.decided_ms, one.matured_ms, one.label, one.features) for one in stream.outcomes]
    found = [(one.begun_ms, one.matured_ms, one.label, one.features) for one in replayed(events)]
    assert len(found) >= 20
    assert found == sorted(expected, key=lambda one: one[0])


def test_no_label_is_learned_before_its_horizon_has_passed() -> None:
    events = history()
    replay = Replay(Task("", MODEL, HOUR), "UTC", "constant")
    learned: list[int] = []
    learn = replay.model.learn_one

    def note(x: dict[str, float], y: int) -> None:
        learned.append(len(replay.examples))
        learn(x, y)

    replay.model.learn_one = note  # type: ignore[method-assign, assignment]
    for example in replay.run(events):
        assert example.matured_ms - example.begun_ms > MODEL.horizon_ms
    assert learned == list(range(1, len(replay.examples) + 1)), "each once, in order of maturing"
    assert [one.matured_ms for one in replay.examples] == sorted(one.matured_ms for one in replay.examples)
