"""One behavioural suite for every kind of model."""

from __future__ import annotations

import json
import math
import random

import pytest
from river import optim

from app.core.influence import teaches
from app.core.profile import Profile
from app.learning import model as model_module
from app.learning.constant import ConstantModel
from app.learning.contract import BadModel, Model
from app.learning.kinds import KINDS, new_model, read_model
from app.learning.mix import MixModel
from app.learning.mix_state import Expert, MixConfig
from app.learning.model import FtrlModel, OpenModel
from app.learning.open_state import Config
from app.learning.trees import TreesModel
from app.learning.trees_state import TreesConfig

Example = tuple[dict[str, float], int]


def examples(count: int, seed: int = 7) -> list[Example]:
    """P(open) rises with `a`, campaign `cart` is opened more; `noise` is on another scale and means nothing."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        campaign = rng.choice(("cart", "news", "price"))
        a = rng.gauss(2.0, 1.0)
        x = {"a": a, "noise": rng.uniform(0, 5_000), f"c={campaign}": 1.0}
        logit = -1.5 + (a - 2.0) + (1.5 if campaign == "cart" else 0.0)
        result.append((x, int(rng.random() < 1 / (1 + math.exp(-logit)))))
    return result


def taught(kind: str, data: list[Example]) -> Model:
    model = new_model(kind)
    for x, y in data:
        model.learn_one(x, y)
    return model


def mean_loss(model: Model, data: list[Example]) -> float:
    total = 0.0
    for x, y in data:
        p = model.predict_proba_one(x)
        total -= math.log(p if y else 1.0 - p)
    return total / len(data)


each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_an_untaught_model_gives_its_prior(kind: str) -> None:
    assert new_model(kind).predict_proba_one({"a": 3.0, "c=any": 1.0}) == pytest.approx(0.15)


@each_kind
def test_test_then_train_is_asking_followed_by_learning(kind: str) -> None:
    at_once, apart = taught(kind, examples(300)), taught(kind, examples(300))
    odd = [({"a": math.nan}, 1), ({"a": -1e9, "c=cart": 99.0, "emerged": 3.0}, 0), ({}, 1)]
    for x, y in odd + examples(200, seed=15):
        asked = apart.predict_proba_one(x)
        apart.learn_one(x, y)
        assert at_once.predict_learn_one(x, y) == pytest.approx(asked, rel=1e-9)
    assert at_once.to_bytes() == apart.to_bytes()


@each_kind
def test_asking_and_explaining_change_nothing(kind: str) -> None:
    model = taught(kind, examples(200))
    before = model.to_bytes()
    for x, _ in examples(50, seed=8):
        model.predict_proba_one(x)
        model.explain_one(x)
        model.freeze(1).open_probability(x)
    assert model.to_bytes() == before


@each_kind
def test_bytes_are_json_of_plain_numbers(kind: str) -> None:
    state = json.loads(taught(kind, examples(100)).to_bytes())
    assert state["kind"] == kind


@each_kind
def test_a_model_read_back_goes_on_bit_for_bit(kind: str) -> None:
    first, second = examples(500), examples(500, seed=9)
    stopped = read_model(kind, taught(kind, first).to_bytes())
    for x, y in second:
        stopped.learn_one(x, y)
    assert stopped.to_bytes() == taught(kind, first + second).to_bytes()


@each_kind
def test_a_frozen_model_gives_the_same_probability(kind: str) -> None:
    model = taught(kind, examples(1_000))
    frozen = model.freeze(17)
    assert frozen.version == 17
    odd = [{}, {"a": -1e9}, {"a": math.nan}, {"a": math.inf, "c=cart": 1.0}, {"c=cart": 99.0}, {"unknown": 4.0}]
    for x in [x for x, _ in examples(200, seed=10)] + odd:
        assert frozen.open_probability(x) == pytest.approx(model.predict_proba_one(x), rel=1e-9)


@each_kind
def test_a_frozen_model_does_not_follow_the_learner(kind: str) -> None:
    model = taught(kind, examples(100))
    frozen = model.freeze(1)
    x = examples(1)[0][0]
    before = frozen.open_probability(x)
    for _ in range(100):
        model.learn_one(x, 1)
    assert frozen.open_probability(x) == before
    assert model.predict_proba_one(x) > before


@each_kind
def test_contributions_add_up_to_the_prediction(kind: str) -> None:
    model = taught(kind, examples(500))
    for x, _ in examples(20, seed=11):
        logit = sum(model.explain_one(x).values())
        assert 1 / (1 + math.exp(-logit)) == pytest.approx(model.predict_proba_one(x), rel=1e-9)


@each_kind
def test_absurd_values_leave_finite_probabilities(kind: str) -> None:
    model = taught(kind, examples(100))
    absurd = [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e12, 5e-324]
    for value in absurd:
        for y in (0, 1):
            model.learn_one({"a": value, "c=cart": value, "new": value}, y)
    model = read_model(kind, model.to_bytes())
    for value in [*absurd, 2.0]:
        assert 0.0 < model.predict_proba_one({"a": value, "c=cart": value, "new": value}) < 1.0


@each_kind
@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_an_example_without_weight_teaches_nothing(kind: str, weight: float) -> None:
    model = taught(kind, examples(10))
    before = model.to_bytes()
    model.learn_one({"a": 1.0}, 1, weight)
    assert model.to_bytes() == before


@each_kind
def test_no_example_counts_for_more_than_the_largest_weight(kind: str) -> None:
    heavy, capped = new_model(kind), new_model(kind)
    heavy.learn_one({"c=cart": 1.0}, 1, 1e9)
    capped.learn_one({"c=cart": 1.0}, 1, 5.0)
    assert heavy.to_bytes() == capped.to_bytes()


@each_kind
@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"kind":"other"}', b"\x80\x04K\x01.", b'{"kind":"open-lr","version":99}']
)
def test_foreign_bytes_are_refused(kind: str, raw: bytes) -> None:
    with pytest.raises(BadModel):
        read_model(kind, raw)


CAPPED = {
    "open-mix": lambda: MixModel(MixConfig(features_max=200)),
    "open-trees": lambda: TreesModel(TreesConfig(mix=MixConfig(features_max=200))),
    "open-lr": lambda: OpenModel(Config(features_max=200)),
    "open-ftrl": lambda: FtrlModel(Config(features_max=200)),
    "constant": ConstantModel,
}


@each_kind
def test_a_flood_of_names_does_not_grow_the_state(kind: str) -> None:
    model = CAPPED[kind]()
    for x, y in examples(2_000):
        model.learn_one(x, y)
    before = [model.predict_proba_one(x) for x, _ in examples(20, seed=16)]
    for number in range(1_000):
        model.learn_one({f"c=flood{number}": 1.0, f"n{number}": float(number)}, number % 2)
    assert len(model.to_bytes()) < 250_000
    after = [model.predict_proba_one(x) for x, _ in examples(20, seed=16)]
    order = sorted(range(20), key=before.__getitem__)
    assert after[order[0]] <= after[order[-1]]


@each_kind
def test_eviction_is_the_same_in_a_model_that_was_read_back(kind: str) -> None:
    def flood(model: Model, start: int) -> None:
        for number in range(start, start + 150):
            model.learn_one({f"c=flood{number}": 1.0, f"n{number % 70}": float(number)}, number % 2)

    straight = CAPPED[kind]()
    flood(straight, 0)
    stopped = read_model(kind, straight.to_bytes())
    flood(straight, 150)
    flood(stopped, 150)
    assert stopped.to_bytes() == straight.to_bytes()


@each_kind
def test_a_feature_that_drifted_alone_is_learned_anew_alone(kind: str) -> None:
    plain, drifted = taught(kind, examples(500)), taught(kind, examples(500))
    drifted.learn_faster("c=cart")
    drifted.learn_faster("c=never seen")
    news = {"a": 2.0, "c=news": 1.0}
    assert drifted.predict_proba_one(news) == pytest.approx(plain.predict_proba_one(news), rel=1e-9)
    for model in (plain, drifted):
        model.learn_one(news, 1)
    assert drifted.predict_proba_one(news) == pytest.approx(plain.predict_proba_one(news), rel=1e-9)
    if kind == "constant":
        return
    before = plain.explain_one({"c=cart": 1.0})["c=cart"]
    for model in (plain, drifted):
        for _ in range(3):  # FTRL's weights are a step behind
            model.learn_one({"c=cart": 1.0}, 0)
    steps = [model.explain_one({"c=cart": 1.0})["c=cart"] - before for model in (plain, drifted)]
    assert steps[1] < 1.5 * steps[0] < 0.0


@each_kind
def test_features_may_emerge_and_disappear(kind: str) -> None:
    model = taught(kind, examples(500))
    for x, y in examples(500, seed=17):
        model.learn_one({name: value for name, value in x.items() if name != "noise"} | {"late": x["noise"]}, y)
    x = {"a": 2.0, "c=cart": 1.0}
    for odd in (x, x | {"noise": 1.0}, x | {"late": 1.0}, {"late": 1.0}, {}):
        assert 0.0 < model.predict_proba_one(odd) < 1.0
        assert model.freeze(1).open_probability(odd) == pytest.approx(model.predict_proba_one(odd), rel=1e-9)


@each_kind
def test_the_same_examples_give_the_same_bytes(kind: str) -> None:
    assert taught(kind, examples(300)).to_bytes() == taught(kind, examples(300)).to_bytes()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BadModel, match="constant"):
        new_model("pickle")


@pytest.mark.parametrize("kind", ["open-mix", "open-lr", "open-ftrl"])
def test_learning_beats_the_base_rate(kind: str) -> None:
    train, test = examples(4_000), examples(2_000, seed=12)
    assert mean_loss(taught(kind, train), test) < mean_loss(taught("constant", train), test) - 0.05


def test_the_steps_are_those_of_rivers_adagrad_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    own = taught("open-lr", examples(500))
    monkeypatch.setattr(model_module, "_AdaGrad", optim.AdaGrad)
    assert taught("open-lr", examples(500)).to_bytes() == own.to_bytes()


def test_an_indicator_is_learned_although_it_is_always_1_when_present() -> None:
    model = taught("open-lr", examples(3_000))
    assert set(json.loads(model.to_bytes())["scaler"]) == {"a", "noise"}
    cart, news = ({"a": 2.0, "noise": 2_500.0, f"c={name}": 1.0} for name in ("cart", "news"))
    assert model.predict_proba_one(cart) > model.predict_proba_one(news) + 0.15


def test_a_new_campaign_starts_from_what_all_users_do() -> None:
    model = taught("open-lr", examples(3_000))
    known = [model.predict_proba_one({"a": 2.0, f"c={name}": 1.0}) for name in ("cart", "news", "price")]
    assert min(known) < model.predict_proba_one({"a": 2.0, "c=never seen": 1.0}) < max(known)


def test_a_feature_that_emerges_does_not_upset_the_others() -> None:
    model = taught("open-lr", examples(2_000))
    x = {"a": 2.0, "c=cart": 1.0}
    before = model.predict_proba_one(x)
    assert model.predict_proba_one(x | {"emerged": 1e6}) == before
    model.learn_one(x | {"emerged": 1e6}, 1)
    assert model.predict_proba_one(x) == pytest.approx(before, abs=0.02)


def test_a_missing_number_counts_as_its_mean() -> None:
    model = taught("open-lr", examples(2_000))
    low, missing, high = (model.predict_proba_one(x) for x in ({"a": 0.0}, {}, {"a": 4.0}))
    assert low < missing < high


def test_a_flood_of_names_neither_grows_the_state_nor_displaces_what_is_known() -> None:
    model = OpenModel(Config(features_max=200))
    for x, y in examples(2_000):
        model.learn_one(x, y)
    before = model.predict_proba_one({"a": 3.0, "c=cart": 1.0})
    for number in range(2_000):
        model.learn_one({f"c=flood{number}": 1.0, f"n{number}": float(number)}, number % 2)
    state = json.loads(model.to_bytes())
    assert len(state["weights"]) <= 200
    assert len(state["scaler"]) <= 200
    assert {"a", "c=cart", "bias"} <= set(state["weights"])
    contribution = model.explain_one({"a": 3.0, "c=cart": 1.0})
    assert contribution["a"] > 0.5
    assert before > 0.5


def test_calibration_follows_a_shift_of_the_base_rate() -> None:
    rng = random.Random(3)
    model = taught("open-lr", examples(2_000))
    for x, _ in examples(6_000, seed=13):
        model.learn_one(x, int(rng.random() < 0.6))
    scores = [model.predict_proba_one(x) for x, _ in examples(1_000, seed=14)]
    assert sum(scores) / len(scores) == pytest.approx(0.6, abs=0.06)


def hills(count: int, seed: int) -> list[Example]:
    """P(open) is high in the middle of `a` only: no line can say that."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        a = rng.gauss(0.0, 1.0)
        result.append(({"a": a}, int(rng.random() < (0.8 if abs(a) < 0.7 else 0.1))))
    return result


def test_the_mixture_moves_to_the_expert_that_is_right() -> None:
    model = MixModel()
    for x, y in hills(8_000, 1):
        model.learn_one(x, y)
    assert model.shares["linear"] < 0.3
    assert mean_loss(model, hills(1_000, 2)) < mean_loss(taught("open-lr", hills(8_000, 1)), hills(1_000, 2)) - 0.1


@pytest.mark.parametrize("kind", ["open-mix", "open-trees"])
def test_a_slow_start_believes_few_examples_less(kind: str) -> None:
    eager, slow = new_model(kind), new_model(kind, slow_start=True)
    for model in (eager, slow):
        for y in (1, 1, 1, 0, 1):
            model.learn_one({"h=3": 1.0}, y)
    assert 0.0 < slow.explain_one({"h=3": 1.0})["h=3"] < 0.5 * eager.explain_one({"h=3": 1.0})["h=3"]
    slow = new_model(kind, slow_start=True)
    train, test = examples(4_000), examples(2_000, seed=12)
    for x, y in train:
        slow.learn_one(x, y)
    assert mean_loss(slow, test) < mean_loss(taught(kind, train), test) + 0.01


def test_crosses_find_what_neither_number_tells_alone() -> None:
    rng = random.Random(4)
    crossed = MixModel(
        MixConfig(curve_rate=0.2, crosses=2, experts=(Expert(name="crosses", curves=True, crosses=True),))
    )
    additive = MixModel(MixConfig(curve_rate=0.2))
    for _ in range(4_000):
        x = {"a": rng.gauss(0.0, 1.0), "b": rng.gauss(0.0, 1.0)}
        for model in (crossed, additive):
            model.learn_one(x, int(x["a"] * x["b"] > 0))
    same, other = {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": -1.0}
    assert crossed.predict_proba_one(same) > 0.8
    assert crossed.predict_proba_one(other) < 0.2
    assert abs(additive.predict_proba_one(same) - additive.predict_proba_one(other)) < 0.3
    assert crossed.freeze(1).open_probability(other) == pytest.approx(crossed.predict_proba_one(other))
    read = MixModel.from_bytes(crossed.to_bytes())
    for model in (read, crossed):
        model.learn_one(same, 1)
    assert read.to_bytes() == crossed.to_bytes()
    assert sum(crossed.explain_one(same).values()) == pytest.approx(logit(crossed.predict_proba_one(same)))


def logit(p: float) -> float:
    return math.log(p / (1.0 - p))


@pytest.mark.parametrize("damage", [{"shares": []}, {"moments": {}}, {"evidence": {}}, {"bias": [0.0]}])
def test_a_state_whose_parts_do_not_fit_is_refused(damage: dict[str, object]) -> None:
    state = json.loads(taught("open-mix", examples(50)).to_bytes())
    with pytest.raises(BadModel):
        read_model("open-mix", json.dumps(state | damage).encode())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "constant"])
def test_a_cold_user_has_the_rate_of_the_segment_else_of_all_else_the_default(kind: str) -> None:
    rng = random.Random(3)
    model = new_model(kind)
    user = {"open_logit": -1.7, "c=cart": 1.0}
    assert model.predict_proba_one(user | {"s=keen": 1.0}) == pytest.approx(0.15)
    for _ in range(6_000):
        keen = rng.random() < 0.5
        model.learn_one(user | {"s=keen" if keen else "s=cold": 1.0}, int(rng.random() < (0.6 if keen else 0.1)))
    assert model.predict_proba_one(user | {"s=keen": 1.0}) == pytest.approx(0.6, abs=0.08)
    assert model.predict_proba_one(user | {"s=cold": 1.0}) == pytest.approx(0.1, abs=0.08)
    assert 0.15 < model.predict_proba_one(user | {"s=new": 1.0}) < 0.55


@pytest.mark.parametrize("kind", ["open-mix", "open-lr"])
def test_a_bot_that_opens_all_day_teaches_the_model_of_all_little(kind: str) -> None:
    rng = random.Random(4)
    x = {"c=cart": 1.0}
    said = {}
    for bounded in (True, False):
        model, row = new_model(kind), Profile()
        for number in range(4_000):  # a day in which every second example is the bot's
            model.learn_one(x, int(rng.random() < 0.2))
            if not bounded or teaches(row, f"bot-{number}", 1_700_000_000_000 + number * 21_600):
                model.learn_one(x, 1)
        said[bounded] = model.predict_proba_one(x)
    assert said[True] == pytest.approx(0.2, abs=0.06)
    assert said[False] > 0.5


def test_a_user_has_as_much_say_in_a_day_as_eight_examples_however_many_there_are() -> None:
    row = Profile()
    days = [teaches(row, f"bot-{number}", 1_700_000_000_000 + number * 8_640) for number in range(100_000)]
    assert sum(days[:10_000]) < 12 * (1 + math.log(10_000 / 8))  # the first day: the pace is not known yet
    assert 3 < sum(days[20_000:]) / 8 < 9
