"""The learner's agent: what it does after an alarm (back to an older version, and forward again), and after a start."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from agents.learner import LearnerService
from app.core.plan import ModelPlan
from app.learning.arms import ArmLearner
from app.learning.book import ModelBook
from app.learning.constant import ConstantModel
from app.learning.items import ItemLearner
from app.learning.learner import Learner
from app.learning.personas import PersonaLearner
from app.learning.progressive import BLOCK
from app.learning.serving import read_scorer
from app.stream.batch import RecordBatch
from app.stream.broadcast import Apply
from app.stream.commits import digest
from schemas.models import encode_snapshot
from schemas.outcomes import Outcome, encode_outcome

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


def example(number: int, label: int, features: dict[str, float], score: float) -> Outcome:
    return Outcome(
        id=f"d{number}",
        model="open",
        label=label,
        features=features,
        score=score,
        model_version=0,
        campaign="c",
        decided_ms=0,
        matured_ms=0,
    )


def feed(learner: Learner, count: int, score: float = 0.1) -> None:
    for _ in range(count):
        number = learner.version
        learner.learn(example(number, int(number % 10 == 0), {}, score))


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


async def test_while_receipts_of_opens_are_lost_a_version_from_before_is_served_and_is_right() -> None:
    topic = Topic()
    guarded, learner = service(topic), Learner("open", "open-lr")
    learner.configure(ModelPlan(kind="open-lr", on_drift="fall_back"))
    rng = random.Random(7)

    async def live(count: int, *, lost: bool) -> None:
        for _ in range(count):
            keen = rng.random() < 0.5
            label = int(not lost and rng.random() < (0.8 if keen else 0.3))
            x = {"s=keen" if keen else "s=cold": 1.0}
            score = read_scorer(served).open_probability(x) if (served := topic.book.served("open")) else 0.15
            learner.learn(example(learner.version, label, x, score))
            if learner.version % 100 == 0:
                await guarded._guard(learner)

    await live(6_000, lost=False)
    assert topic.book.pin("open") is None
    await live(1_500, lost=True)
    pinned = topic.book.pin("open")
    assert pinned is not None
    assert pinned[0] <= 6_000
    served = topic.book.served("open")
    assert served is not None
    assert read_scorer(served).open_probability({"s=keen": 1.0}) > 0.7
    assert learner.scorer().open_probability({"s=keen": 1.0}) < 0.6


async def test_while_a_version_is_pinned_none_is_overwritten() -> None:
    topic = Topic()
    guarded, learner = service(topic), learner_of("fall_back")
    feed(learner, 1_000)
    await guarded._guard(learner)
    learner._drifted("adwin")
    await guarded._guard(learner)
    kept = topic.book.kept("open")
    feed(learner, BLOCK * 2, score=0.1)
    await guarded._guard(learner)
    assert topic.book.kept("open") == kept


async def test_one_campaigns_alarm_takes_no_version_from_the_others() -> None:
    topic = Topic()
    guarded, learner = service(topic), learner_of("fall_back")
    feed(learner, 1_000)
    await guarded._guard(learner)
    learner._drifted("campaign", "c")
    await guarded._guard(learner)
    assert topic.book.pin("open") is None


async def test_an_alarm_alone_changes_nothing_that_is_served() -> None:
    topic = Topic()
    guarded, learner = service(topic), learner_of("alarm")
    feed(learner, 1_000)
    await guarded._guard(learner)
    learner._drifted("page_hinkley")
    await guarded._guard(learner)
    assert topic.book.pin("open") is None
    assert learner.take_alarms() == []


def outcome_record(offset: int, value: bytes) -> Any:
    return SimpleNamespace(key=b"open", value=value, offset=offset, timestamp=offset)


@pytest.mark.parametrize(
    ("end", "there", "version"),
    [(7, b"last", 7), (None, b"last", 7), (4, None, 9), (7, b"another", 9), (7, None, 7)],
    ids=["same", "unknown", "made anew", "made anew, and longer", "retention took it"],
)
async def test_snapshots_are_read_when_the_first_outcomes_come_and_what_they_hold_is_not_learned_again(
    end: int | None, there: bytes | None, version: int
) -> None:
    """Unless the topic was made anew since: then it holds none of these."""
    learner = learner_of("alarm")
    feed(learner, 5)
    snapshot = learner.snapshot(next_offset=5, now_ms=1, partition=0)
    kept = encode_snapshot(replace(snapshot, last=digest(outcome_record(4, b"last"))), SECRET)
    reads: list[str] = []

    async def read(_settings: Any, topic: str, apply: Apply) -> None:
        reads.append(topic)
        apply(b"open", kept, 0)

    topic = Topic()
    batches = SimpleNamespace(highwater=lambda _tp: end)

    async def record_at(_topic: str, _partition: int, offset: int) -> Any:
        return None if there is None else outcome_record(offset, there)

    app: Any = SimpleNamespace(durable_producer=topic, client_settings={}, batches=batches, record_at=record_at)
    learned: list[Learner] = []
    observer: Any = SimpleNamespace(learned=learned.append, refused=lambda _reason: None)
    agent = LearnerService(app, SECRET, observer, lambda: 1, interval_s=0.0, read=read)
    agent.assigned({0})
    await agent.before_resume({0: 3})
    await agent.drain()
    assert reads == [], "an assignment waits for no model"
    outcomes = [encode_outcome(example(100 + offset, 0, {}, 0.1)) for offset in range(3, 7)]
    records: Any = [outcome_record(3 + index, value) for index, value in enumerate(outcomes)]
    done: list[RecordBatch] = []
    batch = RecordBatch("outcomes", 0, records, 1, lambda _batch: True, done.append)
    await agent.submit(batch)
    await agent.submit(RecordBatch("outcomes", 0, records[-1:], 1, lambda _batch: False, done.append))
    assert reads == ["models"]
    assert [one.version for one in learned] == [version]
    assert done == [batch]
    newest = topic.book.newest("open")
    assert newest is not None
    assert newest.last == digest(records[-1]), "the next one can tell whether it is the same log"


async def test_a_learner_goes_on_from_the_snapshot_that_got_furthest_and_says_it_again_where_it_is_not_the_last() -> (
    None
):
    made = {"open": Learner("open", "constant"), "open.choices": ArmLearner("open"), "open.items": ItemLearner("open"),
            "open.personas": PersonaLearner("open")}  # fmt: skip
    furthest = {key: encode_snapshot(one.snapshot(200, 1, 0), SECRET) for key, one in made.items()}
    late = {key: encode_snapshot(one.snapshot(150, 2, 0), SECRET) for key, one in made.items()}
    elsewhere = [encode_snapshot(Learner("other", "constant").snapshot(at, 1, 5), SECRET) for at in (9, 8)]

    async def read(_settings: Any, _topic: str, apply: Apply) -> None:
        for value in (*furthest.values(), *late.values(), *elsewhere):
            apply(None, value, 0)

    said: list[bytes] = []

    async def send(_topic: str, _key: bytes, value: bytes) -> None:
        said.append(value)

    batches = SimpleNamespace(highwater=lambda _tp: 200)
    app: Any = SimpleNamespace(durable_producer=SimpleNamespace(send=send), client_settings={}, batches=batches)
    agent = LearnerService(app, SECRET, SimpleNamespace(), lambda: 1, interval_s=1.0, read=read)  # type: ignore[arg-type]
    await agent.before_resume({0: 200})
    await agent._resume()
    assert agent._partitions[0].learned_to == dict.fromkeys(made, 200)
    assert sorted(said) == sorted(furthest.values())


async def test_a_model_whose_key_was_deleted_begins_anew() -> None:
    async def read(_settings: Any, _topic: str, apply: Apply) -> None:
        for name, offset in (("open", 5), ("open", 4), ("churn", 5)):
            apply(name.encode(), encode_snapshot(Learner(name, "constant").snapshot(offset, 1, 0), SECRET), 0)
        apply(b"open", None, 1)

    app: Any = SimpleNamespace(client_settings={}, batches=SimpleNamespace(highwater=lambda _tp: 9))
    agent = LearnerService(app, SECRET, SimpleNamespace(), lambda: 1, interval_s=1.0, read=read)  # type: ignore[arg-type]
    await agent.before_resume({0: 5})
    await agent._resume()
    assert list(agent._partitions[0].learners) == ["churn"]


async def test_of_a_partition_that_was_given_up_while_a_snapshot_was_on_its_way_nothing_more_is_said() -> None:
    said: list[bytes] = []

    async def send(_topic: str, key: bytes, _value: bytes) -> None:
        said.append(key)
        agent.assigned(set())

    app: Any = SimpleNamespace(durable_producer=SimpleNamespace(send=send), client_settings={})
    observer: Any = SimpleNamespace(learned=lambda _learner: None)
    agent = LearnerService(app, SECRET, observer, lambda: 1, interval_s=1.0)
    await agent.before_resume({0: 0})
    state = agent._partitions[0]
    state.learners = {"churn": Learner("churn", "constant"), "open": Learner("open", "constant")}
    state.items = {"open": ItemLearner("open")}
    state.dirty, state.dirty_items = {"churn", "open"}, {"open"}
    await agent.publish()
    assert said == [b"churn"]


async def test_a_model_that_is_too_large_for_a_message_forgets_and_the_log_says_so() -> None:
    class Fat(ConstantModel):
        size = 600_000

        def to_bytes(self) -> bytes:
            return b" " * self.size + super().to_bytes()

        def shrink(self) -> bool:
            self.size //= 4
            return True

    agent, learner = service(Topic()), learner_of("alarm")
    learner.model = Fat()
    await agent.before_resume({0: 0})
    state = agent._partitions[0]
    state.learners["open"] = learner
    said = []
    for _ in range(2):
        state.dirty = {"open"}
        with capture_logs() as logs:
            await agent.publish()
        said.append([entry["event"] for entry in logs])
    assert said == [["model_shrunk"], []]
