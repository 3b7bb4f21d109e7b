"""What the contract suite does not ask of the mixture with trees: that trees grow, where, and only there."""

from __future__ import annotations

import json
import math
import random

import pytest

from app.learning.contract import BadModel
from app.learning.mix import MixModel
from app.learning.trees import BLOCK, TreesModel
from app.learning.trees_state import TreesConfig

Example = tuple[dict[str, float], int]


def both(count: int, seed: int = 1, turned: bool = False) -> list[Example]:
    """P(open) is high only where `a` and `b` are both high: no sum of curves can say that."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        x = {f"n{at}": rng.gauss(0.0, 1.0) for at in range(4)} | {"a": rng.gauss(0.0, 1.0), "b": rng.gauss(0.0, 1.0)}
        p = 0.9 if x["a"] > 0.0 and (x["b"] > 0.0) != turned else 0.1
        result.append((x, int(rng.random() < p)))
    return result


def taught(data: list[Example], config: TreesConfig | None = None) -> TreesModel:
    model = TreesModel(config)
    for x, y in data:
        model.learn_one(x, y)
    return model


@pytest.fixture(scope="module")
def grown() -> TreesModel:
    return taught(both(8_000 + BLOCK // 2))


def mean_loss(model: TreesModel | MixModel, data: list[Example]) -> float:
    frozen = model.freeze(1)
    scores = [(frozen.open_probability(x), y) for x, y in data]
    return sum(-math.log(p if y else 1.0 - p) for p, y in scores) / len(scores)


def test_trees_find_what_two_numbers_tell_only_together(grown: TreesModel) -> None:
    mix = MixModel()
    for x, y in both(8_000 + BLOCK // 2):
        mix.learn_one(x, y)
    assert mean_loss(grown, both(1_000, 2)) < mean_loss(mix, both(1_000, 2)) - 0.03
    assert grown.share > 0.9


def test_trees_that_have_grown_are_read_back_bit_for_bit_amid_a_block(grown: TreesModel) -> None:
    read = TreesModel.from_bytes(grown.to_bytes())
    again = TreesModel.from_bytes(grown.to_bytes())
    assert read.splits > 2
    for x, y in both(1_500, 3):
        read.learn_one(x, y)
        again.learn_one(x, y)
        if read.examples % 500 == 0:
            again = TreesModel.from_bytes(again.to_bytes())
    assert read.to_bytes() == again.to_bytes()


def test_what_trees_say_is_shared_out_to_the_numbers_they_asked(grown: TreesModel) -> None:
    for x, _ in [*both(50, 4), ({"a": 1.0, "b": math.nan}, 0), ({"a": 1e300, "b": -math.inf}, 0), ({}, 0)]:
        shares = grown.explain_one(x)
        assert 1 / (1 + math.exp(-sum(shares.values()))) == pytest.approx(grown.predict_proba_one(x), rel=1e-9)
    high = grown.explain_one({"a": 1.0, "b": 1.0})
    assert high["a"] > 0.5
    assert high["b"] > 0.5


def test_learner_and_serving_walk_the_same_way(grown: TreesModel) -> None:
    odd = [{}, {"a": math.nan}, {"b": math.inf, "a": 1.0}, {"a": -1e300, "b": 1.0}, {"b": -1e12, "a": 1e12}]
    for x in [x for x, _ in both(100, 5)] + odd:
        asked = grown.predict_proba_one(x)
        copy = TreesModel.from_bytes(grown.to_bytes()) if x in odd else grown
        if x in odd:
            assert copy.predict_learn_one(x, 1) == pytest.approx(asked, rel=1e-9)
        assert grown.freeze(3).open_probability(x) == asked


def test_where_there_is_nothing_to_find_nothing_is_added() -> None:
    rng = random.Random(6)
    data = []
    for _ in range(6_000):
        x = {f"n{at}": rng.gauss(0.0, 1.0) for at in range(6)}
        data.append((x, int(rng.random() < 1 / (1 + math.exp(1.0 - x["n0"] + 0.5 * x["n1"])))))
    assert taught(data).splits == 0


def test_a_tree_that_does_harm_begins_anew(grown: TreesModel) -> None:
    model = TreesModel.from_bytes(grown.to_bytes())
    for x, y in both(6_000, 7, turned=True):
        model.learn_one(x, y)
    assert json.loads(model.to_bytes())["resets"] > 0
    kept = TreesModel(TreesConfig(mix=model.config.mix))
    for x, y in both(6_000, 7, turned=True):
        kept.learn_one(x, y)
    assert mean_loss(model, both(1_000, 8, turned=True)) < mean_loss(kept, both(1_000, 8, turned=True)) + 0.05


def test_columns_that_nobody_sends_any_more_make_room() -> None:
    config = TreesConfig(columns=2, trees=1, leaves=2)
    model = taught([({"a": float(at % 7), "b": 1.0}, at % 2) for at in range(100)], config)
    for at in range(BLOCK * 210):
        model.learn_one({"b": float(at % 5), "new": 2.0}, at % 2)
    assert {column[0] for column in json.loads(model.to_bytes())["columns"]} == {"b", "new"}


@pytest.mark.parametrize(
    ("part", "value"),
    [("share", 2.0), ("histograms", ""), ("pending", ""), ("trees", []), ("cycle", 0), ("beyond", 999)],
)
def test_a_state_whose_parts_do_not_fit_is_refused(grown: TreesModel, part: str, value: object) -> None:
    state = json.loads(grown.to_bytes())
    if part in ("cycle", "beyond"):
        state["trees"][0][2][0] = value
    else:
        state[part] = value
    with pytest.raises(BadModel, match="fit together"):
        TreesModel.from_bytes(json.dumps(state).encode())
