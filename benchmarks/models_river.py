"""Small sets that River brings, in the order given, each label learned at once: ours beside River's own examples.

Phishing (1,250 web pages, 9 numbers) is what River's documentation introduces logistic regression with. Bananas
(5,300 points of two numbers, not separable by a line) is what it shows its forests with. Windows (2,310 image
segments, 18 numbers: is it a window?) is its ImageSegments, one class against the rest. SEA (1,000 points of three
numbers, another concept from the middle on) is the example of its adaptive tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from river import datasets, forest, linear_model, preprocessing, tree
from river.datasets import synth

from app.learning.contract import Model
from app.learning.mix import MixModel
from app.learning.mix_state import Expert, MixConfig
from app.learning.trees import TreesModel
from app.learning.trees_state import TreesConfig

CROSSED: Final = MixConfig(
    prior=0.5,
    curve_rate=0.2,
    crosses=4,
    experts=(
        Expert(name="linear"),
        Expert(name="curves", curves=True),
        Expert(name="crosses", curves=True, crosses=True),
    ),
)
"""For few examples: larger steps of the curves than the default. The first 4 numbers are crossed."""


class _Ours:
    def __init__(self) -> None:
        self._model: Model = MixModel(CROSSED)

    def predict_proba_one(self, x: Mapping[str, float]) -> dict[bool, float]:
        return {True: self._model.predict_proba_one(x)}

    def learn_one(self, x: Mapping[str, float], y: bool) -> None:
        self._model.learn_one(x, int(y))


def _forest() -> Any:
    return forest.AMFClassifier(n_estimators=10, use_aggregation=True, dirichlet=0.5, seed=1)


def _regression() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def _adaptive_tree() -> Any:
    return tree.HoeffdingAdaptiveTreeClassifier(
        grace_period=100, delta=1e-5, leaf_prediction="nb", nb_threshold=10, seed=0
    )


class _Trees(_Ours):
    def __init__(self) -> None:
        self._model = TreesModel(TreesConfig(mix=CROSSED, grace=100))


MODELS: Final[dict[str, Callable[[], Any]]] = {
    "": _Ours,
    "_trees": _Trees,
    "_river_lr": _regression,
    "_river_tree": tree.HoeffdingTreeClassifier,
    "_river_adaptive_tree": _adaptive_tree,
    "_river_forest": _forest,
}


def _windows() -> Iterable[tuple[dict[str, float], bool]]:
    for x, y in datasets.ImageSegments():
        yield x, y == "window"


def _sea() -> Iterable[tuple[dict[str, float], bool]]:
    stream = synth.ConceptDriftStream(
        stream=synth.SEA(seed=42, variant=0), drift_stream=synth.SEA(seed=42, variant=1), seed=1, position=500, width=50
    )
    for x, y in stream.take(1_000):
        yield {str(name): float(value) for name, value in x.items()}, bool(y)


SETS: Final[dict[str, Callable[[], Iterable[tuple[dict[str, float], bool]]]]] = {
    "phishing": datasets.Phishing,
    "bananas": datasets.Bananas,
    "windows": _windows,
    "sea": _sea,
}


def replay() -> dict[str, tuple[list[float], list[int]]]:
    """Scores and labels by ``{set}{model}``; ours has no suffix."""
    result = {}
    for name, data in SETS.items():
        for suffix, make in MODELS.items():
            model = make()
            scores, labels = [], []
            for x, y in data():
                scores.append(float(model.predict_proba_one(x).get(True, 0.5)))
                labels.append(int(y))
                model.learn_one(x, bool(y))
            result[name + suffix] = (scores, labels)
    return result
