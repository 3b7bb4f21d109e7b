"""How the compose file is read where it is rehearsed as processes (tests/support/compose.py)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.demo.audience import TIMEZONES, local_hour
from app.policy.load import load_policy_text
from tests.support.compose import Stack, awake, interpolated, problems, properties
from tests.support.deploy import ROOT

GOOD = {
    "targets_up": 3,
    "console": True,
    "events_applied": 1.0,
    "decisions": 1.0,
    "sends": 1.0,
    "rules_failing": [],
    "firing": [],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("${A}", "1"), ("${A:-2}", "1"), ("${B:-2}", "2"), ("${B:-}", ""), ("${A:?set it}x", "1x"), ("${B}", "")],
)
def test_variables_are_put_in_as_compose_does(text: str, expected: str) -> None:
    assert interpolated(text, {"A": "1"}) == expected


def test_a_variable_that_must_be_set_is_named() -> None:
    with pytest.raises(KeyError, match="B: set it"):
        interpolated("${B:?set it}", {"A": "1"})


def test_the_variables_of_kafkas_image_are_its_properties() -> None:
    assert properties({"KAFKA_LOG_DIRS": "/x", "KAFKA_NODE_ID": "1", "KAFKA_HEAP_OPTS": "-Xmx1g"}) == {
        "log.dirs": "/x",
        "node.id": "1",
    }


def test_each_service_has_an_address_of_its_own_and_listens_on_no_other(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"NUDGE_SECRET": "s", "NUDGE_CONSOLE_TOKEN": "t"})
    worker, kafka = stack.environment("worker-1"), properties(stack.environment("kafka"))
    assert worker["NUDGE_BROKER"] == stack.address("kafka", 9092)
    assert stack.address("worker-1", 6066) == f"{worker['NUDGE_HTTP_HOST']}:6066"
    assert stack.address("sender", 6066) in stack.environment("console")["NUDGE_WORKER_URLS"]
    assert kafka["listeners"].split(",")[1] == f"HOST://{stack.address('kafka', 9094)}"
    assert kafka["advertised.listeners"].endswith(f"HOST://{stack.address('kafka', 9094)}")
    every = {**worker, **kafka, **stack.environment("console")}
    assert not any(name in value for value in every.values() for name in ("0.0.0.0", "localhost", "kafka:", "://:"))


@pytest.mark.parametrize("hour", range(24))
def test_no_invented_user_has_quiet_hours(hour: int) -> None:
    plan = load_policy_text(awake((ROOT / "policies" / "shop.yaml").read_text(), hour), "shop.yaml")
    assert plan.quiet_hours is not None
    now_ms = int(datetime(2026, 6, 1, hour, 30, tzinfo=UTC).timestamp() * 1000)
    for zone in TIMEZONES:
        minute = local_hour(zone, now_ms) * 60
        assert not 0 <= (minute - plan.quiet_hours.start_minute) % 1440 < 60


def test_what_was_not_seen_is_a_problem() -> None:
    assert problems(GOOD) == []
    assert problems(GOOD | {"sends": 0, "targets_up": 2, "console": False, "firing": ["NudgeDown"]}) == [
        "sends is 0",
        "2 of 3 processes are scraped",
        "the console does not answer",
        "firing: ['NudgeDown']",
    ]
