"""What the learner's agent does after an alarm: it goes back to a version from before, and forward again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

from agents.learner import LearnerService
from app.core.plan import ModelPlan
from app.learning.book import ModelBook
from app.learning.learner import Learner
from app.learning.progressive import BLOCK
from schemas.outcomes import Outcome

SECRET = b"test secret"


class Topic:
    """The models topic: whatever is sent is in the book at once."""

    def __init__(self) -> None:
        self.book = ModelBook(SECRET)

    async def send(self, _topic: str, _key: bytes, value: bytes) -> None:
        self.book.apply(value)


def service(topic: Topic) -> LearnerService:
    app: Any = SimpleNamespace(durable_producer=topic, client_settings={})
    observer: Any = SimpleNamespace(learned=lambda _learner: None, refused=lambda _reason: None)
    return LearnerService(app, SECRET, observer, lambda: 1, interval_s=1.0, pin_of=topic.book.pin)


def learner_of(on_drift: Literal["alarm", "fall_back"]) -> Learner:
    learner = Learner("open", "constant")
    learner.configure(ModelPlan(kind="constant", on_drift=on_drift))
    return learner


def feed(learner: Learner, count: int, score: float = 0.1) -> None:
    for _ in range(count):
        number = learner.version
        learner.learn(
            Outcome(
                id=f"d{number}",
                model="open",
                label=int(number % 10 == 0),
                features={},
                score=score,
                model_version=0,
                campaign="c",
                decided_ms=0,
                matured_ms=0,
            )
        )


async def test_after_an_alarm_a_version_from_before_is_served_until_the_newest_is_better() -> None:
    topic = Topic()
    guarded, learner = service(topic), learner_of("fall_back")
    for _ in range(8):
        feed(learner, 500)
        await guarded._guard(learner)
    learner._drifted("page_hinkley")
    await guarded._guard(learner)
    pinned = topic.book.pin("open")
    assert pinned is not None
    assert pinned[1].by == "drift"
    assert pinned[0] <= learner.version - BLOCK
    feed(learner, 2 * BLOCK - 1, score=0.9)
    await guarded._guard(learner)
    assert topic.book.pin("open") == pinned
    feed(learner, 1, score=0.9)
    await guarded._guard(learner)
    assert topic.book.pin("open") is None


async def test_while_a_version_is_pinned_none_is_overwritten() -> None:
    topic = Topic()
    guarded, learner = service(topic), learner_of("fall_back")
    feed(learner, 1_000)
    await guarded._guard(learner)
    learner._drifted("campaign")
    await guarded._guard(learner)
    kept = topic.book.kept("open")
    feed(learner, BLOCK * 2, score=0.1)
    await guarded._guard(learner)
    assert topic.book.kept("open") == kept


async def test_an_alarm_alone_changes_nothing_that_is_served() -> None:
    topic = Topic()
    guarded, learner = service(topic), learner_of("alarm")
    feed(learner, 1_000)
    await guarded._guard(learner)
    learner._drifted("page_hinkley")
    await guarded._guard(learner)
    assert topic.book.pin("open") is None
    assert learner.take_alarms() == []
