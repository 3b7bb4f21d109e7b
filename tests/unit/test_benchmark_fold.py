"""The benchmark of folding tells each chunk's cost, and compares checkouts turn by turn."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fold
from benchmarks.common import ROOT


@pytest.mark.parametrize("policy", ["segments20.yaml", "latency.yaml"])
def test_every_whole_chunk_has_a_cost(policy: str) -> None:
    """Also where decisions follow of events."""
    costs = list(fold.chunk_costs_us(2 * fold.CHUNK_RECORDS + 1, 700, 1, policy=ROOT / "benchmarks" / policy))
    assert len(costs) == 2
    assert all(0 < cost < 1e6 for cost in costs)


def test_the_figure_is_the_tenth_percentile_of_all_chunks() -> None:
    turns = [
        {"chunks_us": [float(n) for n in range(1, 11)], "compiled": True},
        {"chunks_us": [20.0] * 9, "compiled": True},
    ]
    made = fold.summary(turns)
    assert made["us_per_event"] == 2.0
    assert made["turns_us"][1] == 20.0


def test_the_turns_of_two_checkouts_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def turn(checkout: Any, _options: Any, seed: int) -> dict[str, Any]:
        seen.append((checkout.name, seed))
        return {"chunks_us": [1.0, 2.0], "compiled": False}

    monkeypatch.setattr(fold, "turn", turn)
    other = ROOT / "tests"
    made = fold.compare(argparse.Namespace(against=other, turns=2, seed=5))
    assert seen == [(ROOT.name, 5), ("tests", 5), ("tests", 6), (ROOT.name, 6)]
    assert set(made) == {"here", "against"}


def test_a_folder_that_is_no_checkout_is_an_error_and_not_a_figure(tmp_path: Path) -> None:
    options = argparse.Namespace(events=2048, events_per_user=3.0, keys="uniform", policy=ROOT / "none.yaml")
    with pytest.raises(SystemExit, match="No module named"):
        fold.turn(tmp_path, options, 1)
