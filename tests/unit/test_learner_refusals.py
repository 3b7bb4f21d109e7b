"""What is no outcome, or an absurd one: a dead letter with its reason, and nothing of it reaches a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agents.learner import AHEAD_MS_MAX, LearnerService
from app.learning.arms import ArmLearner
from app.learning.items import ItemLearner
from app.learning.learner import Learner
from app.learning.personas import PersonaLearner
from app.stream.batch import RecordBatch
from schemas.dead_letters import read_dead_letter
from schemas.events import Rejected
from schemas.models import decode_snapshot
from schemas.outcomes import NO_EXAMPLE, Outcome, encode_outcome, read_outcome
from schemas.topics import DEAD_LETTERS, MODELS

SECRET = b"test secret"
NOW_MS = 1_800_000_000_000


def example(**changed: Any) -> Outcome:
    plain = Outcome(
        id="d", model="open", label=1, features={"recency": 1.0}, score=0.5, model_version=0, campaign="cart",
        decided_ms=NOW_MS, matured_ms=NOW_MS, variant="a", chooser="contextual",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changed)


def basket(**changed: Any) -> Outcome:
    return example(label=NO_EXAMPLE, campaign="", variant="", items=[["tea", "drinks", "Tea"], ["mug"]], **changed)


def vector(**changed: Any) -> Outcome:
    x = {"bucket": 7.0, "recency_log_d": 1.0, "k=tea": 1.0}
    return example(label=NO_EXAMPLE, campaign="", variant="", persona=0, **{"features": x} | changed)


FORGED = {
    "a score that overflows when it is squared": example(score=1e200),
    "a name that is the key of what was learned of variants": example(model="open.choices"),
    "the name of a model that fills a snapshot": example(model="m" * 200_000),
    "a campaign that fills a snapshot": example(campaign="c" * 70_000),
    "a feature that fills a snapshot": example(features={"f" * 5_000: 1.0}),
    "more features than there are": example(features={f"f{number}": 1.0 for number in range(1_000)}),
    "a time that no message can hold": basket(decided_ms=10**25),
    "a time before time": vector(decided_ms=-5),
    "an hour that there is not": example(hour=10**12),
    "a limit that stops everything": example(opt_out_limit=-1.0),
    "a segment that fills a snapshot": basket(segments=["s" * 10_000]),
    "a basket of a whole shop": basket(id="b", segments=["s"] * 101),
    "a gain beyond any": example(label=NO_EXAMPLE, gain=1e300, penalty=1.0),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_what_no_worker_says_is_refused_and_not_quoted(forged: Outcome) -> None:
    found = read_outcome(msgspec.json.encode(forged))
    assert isinstance(found, Rejected)
    assert found.reason in ("invalid_field", "too_large")
    assert len(found.detail) < 200


@pytest.mark.parametrize("raw", [None, b"", b"{", b"\xff", b"[" * 100_000, b'{"id": NaN}', b"5" * 70_000])
def test_a_record_that_is_no_outcome_is_refused(raw: bytes | None) -> None:
    assert isinstance(read_outcome(raw), Rejected)


def test_a_feature_that_is_not_finite_is_left_out_of_what_goes_out() -> None:
    sent = encode_outcome(example(features={"t.debt": float("inf"), "t.x": float("nan"), "recency": 1.0}))
    found = read_outcome(sent)
    assert isinstance(found, Outcome)
    assert found.features == {"recency": 1.0}


class Broker:
    """What was produced; stands for the app."""

    def __init__(self) -> None:
        self.produced: list[tuple[str, bytes | None, bytes | None, Any]] = []
        self.durable_producer = self
        self.client_settings: dict[str, Any] = {}
        self.batches = SimpleNamespace(highwater=lambda _tp: None)

    async def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Any = ()) -> None:
        self.produced.append((topic, key, value, headers))

    def letters(self) -> list[tuple[int, str]]:
        found = [read_dead_letter(headers) for topic, _, _, headers in self.produced if topic == DEAD_LETTERS]
        return [(letter.offset, letter.reason) for letter in found]


async def learned(*values: bytes | None) -> tuple[Broker, LearnerService, list[str], list[RecordBatch]]:
    """The values as one batch, and the snapshots after it."""
    broker, reasons, done = Broker(), list[str](), list[RecordBatch]()
    observer: Any = SimpleNamespace(learned=lambda _learner: None, refused=reasons.append)

    async def nothing(*_arguments: Any) -> None: ...

    service = LearnerService(broker, SECRET, observer, lambda: NOW_MS, interval_s=0.0, read=nothing)  # type: ignore[arg-type]
    await service.before_resume({0: 0})
    records: Any = [
        SimpleNamespace(key=b"open", value=value, offset=offset, timestamp=0) for offset, value in enumerate(values)
    ]
    await service.submit(RecordBatch("outcomes", 0, records, 1, lambda _batch: True, done.append))
    return broker, service, reasons, done


async def test_forged_outcomes_are_dead_letters_and_the_models_know_only_the_others() -> None:
    good = [encode_outcome(one) for one in (example(), basket(), vector())]
    forged = [msgspec.json.encode(one) for one in FORGED.values()]
    later = encode_outcome(example(id="later", decided_ms=NOW_MS + AHEAD_MS_MAX + 1))
    broker, service, reasons, done = await learned(None, b"{", *forged, later, *good)
    count = 3 + len(FORGED)
    assert [offset for offset, _ in broker.letters()] == list(range(count))
    assert [reason for _, reason in broker.letters()] == reasons
    assert reasons[:2] == ["empty", "malformed_json"]
    assert reasons[-1] == "timestamp_in_future"
    assert len(done) == 1
    state = service._partitions[0]
    assert [list(kind) for kind in (state.learners, state.arms, state.items, state.personas)] == [["open"]] * 4
    restore = {"": Learner, "choices": ArmLearner, "items": ItemLearner, "personas": PersonaLearner}
    snapshots = [decode_snapshot(value or b"", SECRET) for topic, _, value, _ in broker.produced if topic == MODELS]
    assert sorted(one.model.partition(".")[2] for one in snapshots) == sorted(restore)
    for one in snapshots:
        again = restore[one.model.partition(".")[2]].restore(one)  # type: ignore[attr-defined]
        assert one.version == again.snapshot(0, 0, 0).version == 1


@pytest.mark.parametrize("bucket", [1e300, -1e300, 10_000.0, 2.0**63])
async def test_a_hash_bucket_that_there_is_not_is_nobodys_and_the_snapshots_go_out(bucket: float) -> None:
    raw = [basket(features={"bucket": bucket}), vector(features={"bucket": bucket, "k=tea": 1.0})]
    broker, service, reasons, done = await learned(*map(encode_outcome, raw))
    assert (reasons, len(done)) == ([], 1)
    state = service._partitions[0]
    assert state.items["open"]._items[0].users == [-1]
    assert state.personas["open"]._users == [-1]
    assert [topic for topic, *_ in broker.produced] == [MODELS, MODELS]


async def test_a_defect_in_a_model_costs_one_record_not_one_worker_after_the_other(capsys: Any) -> None:
    class Defective(Learner):
        def learn(self, outcome: Outcome) -> bool:
            if outcome.id == "ann@example.org":
                raise ArithmeticError(outcome.id)
            return super().learn(outcome)

    broker, service, reasons, _ = await learned(encode_outcome(example()))
    service._partitions[0].learners["open"] = Defective("open", "constant")
    refused = service._learn(
        service._partitions[0], SimpleNamespace(value=encode_outcome(example(id="ann@example.org")), offset=1)
    )
    assert refused is not None
    assert refused.reason == "processing_failed"
    assert (
        service._learn(service._partitions[0], SimpleNamespace(value=encode_outcome(example(id="e")), offset=2)) is None
    )
    assert "ann@example.org" not in refused.detail + capsys.readouterr().out
    assert reasons == broker.letters() == []
