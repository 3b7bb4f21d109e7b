"""Which settings of a topic are a problem: those by which it would lose what is counted on."""

from __future__ import annotations

import pytest

from app.topics import problems_of_config
from schemas.topics import BY_NAME, CLOCK, EVENTS, PROFILES_CHANGELOG, TOPICS


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_as_it_is_created_has_no_problem(topic) -> None:
    assert problems_of_config(topic, topic.config()) == []


@pytest.mark.parametrize(
    ("name", "key", "value", "problem"),
    [
        (PROFILES_CHANGELOG, "cleanup.policy", "delete", "cleanup.policy is delete; expected compact"),
        (PROFILES_CHANGELOG, "min.compaction.lag.ms", "0", "min.compaction.lag.ms is 0; expected 3600000 or more"),
        (EVENTS, "retention.ms", "3600000", "retention.ms is 3600000; expected 604800000 or more"),
        (CLOCK, "message.timestamp.type", "CreateTime", "message.timestamp.type is CreateTime; expected LogAppendTime"),
    ],
)
def test_what_loses_records_is_named_with_its_mend(name: str, key: str, value: str, problem: str) -> None:
    topic = BY_NAME[name]
    (found,) = problems_of_config(topic, topic.config() | {key: value})
    assert found.problem == problem
    assert found.mend == f"kafka-configs --alter --topic {name} --add-config {key}={topic.config()[key]}"


@pytest.mark.parametrize("value", ["-1", "9999999999999"])
def test_what_is_kept_longer_is_no_problem(value: str) -> None:
    topic = BY_NAME[EVENTS]
    assert problems_of_config(topic, topic.config() | {"retention.ms": value}) == []


def test_what_the_broker_does_not_report_is_taken_for_right() -> None:
    assert [problems_of_config(topic, {}) for topic in TOPICS] == [[] for _ in TOPICS]
