"""Which version of a model is served: the newest, or the one that it is pinned to."""

from __future__ import annotations

import msgspec
import pytest

from app.cli_models import rows_of
from app.learning.book import KEPT_MAX, NOWHERE, ModelBook, Pin, kept_name, pin_record
from app.learning.constant import ConstantModel
from app.learning.serving import SERVED_KINDS, read_scorer, served_state
from app.policy.model import ModelKind
from schemas.models import BadSignature, ModelSnapshot, encode_snapshot

SECRET = b"test secret"


def snapshot(version: int, name: str = "open", partition: int = 0, next_offset: int = 0) -> bytes:
    state = served_state("constant", ConstantModel().to_bytes())
    found = ModelSnapshot(
        model=name,
        version=version,
        partition=partition,
        next_offset=next_offset,
        created_ms=version,
        state=state,
        metrics={"recent_log_loss": 0.3},
    )
    return encode_snapshot(found, SECRET)


def kept(version: int, slot: int) -> bytes:
    return snapshot(version, kept_name("open", slot), NOWHERE)


def pin(version: int, by: str = "operator") -> bytes:
    return encode_snapshot(pin_record("open", version, Pin(by, "why"), 1), SECRET)


def book(*values: bytes) -> ModelBook:
    found = ModelBook(SECRET)
    for value in values:
        found.apply(value)
    return found


def served(*values: bytes) -> int:
    found = book(*values).served("open")
    assert found is not None
    return found.version


def test_the_newest_is_served() -> None:
    assert served(snapshot(10), kept(10, 0), snapshot(20)) == 20


def test_what_a_deposed_learner_writes_late_is_not_served() -> None:
    assert served(snapshot(10, next_offset=100), snapshot(20, next_offset=200), snapshot(15, next_offset=150)) == 20


def test_of_two_at_one_offset_and_of_two_partitions_the_later_is_served() -> None:
    assert served(snapshot(10, next_offset=100), snapshot(9, next_offset=100)) == 9
    assert served(snapshot(10, next_offset=100), snapshot(1, partition=1, next_offset=5)) == 1


def test_what_was_learned_from_outcomes_that_were_made_anew_is_served() -> None:
    assert served(snapshot(500, next_offset=10_000), snapshot(501, next_offset=1)) == 501


def test_a_pinned_version_is_served_whatever_the_learner_publishes() -> None:
    assert served(kept(10, 0), snapshot(20), pin(10), snapshot(30)) == 10


def test_the_order_of_pin_and_kept_version_does_not_matter() -> None:
    assert served(pin(10), snapshot(30), kept(10, 0)) == 10


def test_a_released_model_is_served_at_its_newest() -> None:
    assert served(kept(10, 0), snapshot(30), pin(10), pin(0)) == 30


def test_a_pin_to_a_version_that_is_not_kept_any_more_is_none() -> None:
    assert served(kept(10, 0), snapshot(30), pin(10), kept(25, 0)) == 30


def test_a_kept_version_is_served_as_it_was() -> None:
    found = book(kept(10, 0), snapshot(20), pin(10)).served("open")
    assert found is not None
    assert read_scorer(found).version == 10


def test_an_unsigned_pin_is_refused() -> None:
    with pytest.raises(BadSignature):
        book(encode_snapshot(pin_record("open", 1, Pin("operator"), 1), b"other"))


def test_a_pin_whose_state_is_none_is_refused() -> None:
    record = msgspec.structs.replace(pin_record("open", 1, Pin("operator"), 1), state=b"{}")
    with pytest.raises(msgspec.MsgspecError):
        book(encode_snapshot(record, SECRET))


def test_no_learner_goes_on_from_a_kept_version_or_a_pin() -> None:
    assert pin_record("open", 1, Pin("operator"), 1).partition == NOWHERE < 0


def test_the_list_says_what_is_kept_and_what_is_served() -> None:
    rows = rows_of(book(kept(10, 0), snapshot(20), snapshot(3, "open.choices"), pin(10)))
    assert [(row["model"], row["version"], row["state"]) for row in rows] == [
        ("open", 20, "newest"),
        ("open", 10, "kept, served (pinned by operator: why)"),
    ]


def test_a_worker_remembers_its_own_model_only() -> None:
    found = ModelBook(SECRET, lambda model: model == "open")
    found.apply(snapshot(5, "other"))
    found.apply(snapshot(5, kept_name("other", KEPT_MAX - 1), NOWHERE))
    assert found.models() == []
    assert found.kept("other") == []


def test_a_policy_may_name_every_kind_that_can_be_served() -> None:
    assert set(ModelKind.__args__) == set(SERVED_KINDS)
