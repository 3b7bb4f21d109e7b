from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from app.core.effects import Effects
from app.core.plan import Plan
from app.metrics import Metrics, WorkerObserver

LIST = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_every_metric_is_in_the_list_with_its_labels_and_nothing_else_is() -> None:
    metrics = vars(Metrics(CollectorRegistry())).values()
    rows = set()
    for metric in metrics:
        if hasattr(metric, "_labelnames"):
            name = metric._name + ("_total" if metric._type == "counter" else "")
            labels = ", ".join(metric._labelnames)
            rows.add(f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |")
    listed = {line for line in LIST.read_text().splitlines() if line.startswith("| `")}
    assert listed == rows


def test_effects_are_counted_under_their_labels() -> None:
    registry = CollectorRegistry()
    observer = WorkerObserver(Metrics(registry), Plan(version="1"))
    effects = Effects()
    effects.counts.update({("events", "applied"): 3, ("decisions", "suppress", "consent"): 2, ("outcomes", "1"): 1})
    effects.counts.update({("segment_changes", "enter"): 1, ("timers", "fired"): 4, ("ignored_values",): 1})
    effects.members["busy"] = 2
    observer.effects(effects, partition=0)
    observer.effects(effects, partition=1)
    value = registry.get_sample_value
    assert value("nudge_events_total", {"topic": "events", "outcome": "applied"}) == 6
    assert value("nudge_decisions_total", {"decision": "suppress", "reason": "consent"}) == 4
    assert value("nudge_segment_members", {"segment": "busy"}) == 4
    assert value("nudge_membership_changes_total", {"change": "enter"}) == 2
    assert value("nudge_timers_total", {"outcome": "fired"}) == 8
    assert value("nudge_values_ignored_total") == 2


@pytest.mark.parametrize("reason", ["processing_failed", "bad_row"])
def test_a_first_failure_is_an_increase(reason: str) -> None:
    registry = CollectorRegistry()
    WorkerObserver(Metrics(registry), Plan(version="1"))
    labels = {"topic": "events", "reason": reason}
    assert registry.get_sample_value("nudge_dead_letter_records_total", labels) == 0


def test_a_partition_that_is_given_up_no_longer_counts() -> None:
    registry = CollectorRegistry()
    observer = WorkerObserver(Metrics(registry), Plan(version="1"))
    effects = Effects()
    effects.members["busy"] = 2
    observer.effects(effects, partition=0)
    observer.effects(effects, partition=1)
    observer.members(0, None)
    effects.members["busy"] = 1
    observer.effects(effects, partition=1)
    assert registry.get_sample_value("nudge_segment_members", {"segment": "busy"}) == 3
