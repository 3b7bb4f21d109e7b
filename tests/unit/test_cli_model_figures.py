"""`nudge models show` reads the learner's books."""

from __future__ import annotations

import random

import msgspec
import pytest

from app.cli_model_figures import FIGURES, _print, figures_of
from app.core.plan import ModelPlan
from app.learning.learner import Learner
from app.learning.serving import served_state
from schemas.models import ModelSnapshot
from schemas.outcomes import Outcome


def learner(count: int = 1_200) -> Learner:
    found = Learner("open", "constant")
    found.configure(ModelPlan(kind="constant", challenger="open-mix"))
    rng = random.Random(1)
    for at in range(count):
        campaign = "often" if at % 2 else "rarely"
        found.learn(
            Outcome(
                id=f"d{at}",
                model="open",
                label=int(rng.random() < (0.5 if at % 2 else 0.1)),
                features={f"c={campaign}": 1.0},
                score=0.5 if at % 2 else 0.1,
                model_version=0,
                campaign=campaign,
                decided_ms=at,
                matured_ms=at,
            )
        )
    return found


def test_figures_are_of_all_examples_of_the_newest_and_of_each_campaign(capsys: pytest.CaptureFixture[str]) -> None:
    model = learner()
    found = figures_of(model.snapshot(9, 1, 0))
    served = found["figures"]["served"]
    assert set(FIGURES) <= set(served)
    assert served["auc"] == pytest.approx(model.metrics()["auc"])
    assert served["precision"] == pytest.approx(model.metrics()["precision"])
    assert found["campaigns"]["often"]["recent_recall"] == 1.0
    assert found["campaigns"]["rarely"]["recent_recall"] == 0.0
    assert found["drift"] == {"page_hinkley": 0, "adwin": 0, "campaign": 0}
    _print(found)
    assert "often" in capsys.readouterr().out


def test_how_the_challenger_does_is_said_with_the_bound_that_promotes_it() -> None:
    found = figures_of(learner().snapshot(9, 1, 0))
    assert found["promotions"] == 1
    assert found["challenger"]["kind"] == "constant"
    early = figures_of(learner(300).snapshot(9, 1, 0))
    assert early["challenger"]["kind"] == "open-mix"
    assert early["challenger"]["gain"] > 0.0
    assert early["challenger"]["gain_lower"] is None


def test_a_version_without_books_is_refused() -> None:
    kept = ModelSnapshot(
        model="open",
        version=1,
        partition=-1,
        next_offset=0,
        created_ms=1,
        state=served_state("constant", b"{}"),
        metrics={},
    )
    with pytest.raises(msgspec.ValidationError, match="progressive"):
        figures_of(kept)
