"""Personas learned in the stream: found, told apart, named, and the same ones over time."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from agents.learner import LearnerService, _Partition
from app.cli_personas import report
from app.core.persona_table import PersonaTable
from app.core.persona_vector import MEASURES
from app.core.plan import PersonaPlan
from app.core.processor import Processor
from app.learning.book import ModelBook, Pin, kept_name, pin_record
from app.learning.contract import BadModel
from app.learning.macroclusters import between, clusterings, silhouette
from app.learning.microclusters import POINTS_MAX, MicroClusters
from app.learning.persona_names import name_of
from app.learning.personas import DAY_VECTORS_MAX, SETTLE_MS, USERS_MIN, PersonaLearner
from app.learning.served_personas import Served, ServedState, personas_name, read_personas, read_served
from app.learning.serving import prior_scorer
from app.metrics import Metrics
from app.model_feed import ModelFeed
from app.settings import Settings
from schemas.models import ModelSnapshot, decode_snapshot, encode_snapshot
from schemas.outcomes import Outcome, encode_outcome
from tests.support.plans import campaign_only, make_plan
from tests.support.population import DAY, KINDS, START, Kind, User, adjusted_rand, live, outcome, people

EVEN = dict.fromkeys(KINDS, 50)


def found_by(learner: PersonaLearner, newest: Mapping[int, tuple[User, Outcome]]) -> float:
    """How well the personas served now are the kinds of the users (adjusted Rand index)."""
    table = read_personas(learner.snapshot(0, 0, 0))
    given = [persona_id(table, one.features) for _, one in newest.values()]
    return adjusted_rand([user.kind for user, _ in newest.values()], given)


def persona_id(table: PersonaTable, x: Mapping[str, float]) -> int:
    persona = table.nearest(x)
    assert persona is not None
    return persona.id


class World:
    """Users who live on, and a learner that hears of them."""

    def __init__(self, seed: int = 1, numbers: Mapping[str, int] = EVEN) -> None:
        self.rng = Random(seed)
        self.users = people(numbers, self.rng)
        self.learner = PersonaLearner("open")
        self.newest: dict[int, tuple[User, Outcome]] = {}
        self.day = 0

    def live(self, days: int, kinds: Mapping[str, Kind] = KINDS) -> World:
        for user, one in live(self.users, range(self.day, self.day + days), self.rng, kinds):
            self.learner.learn(one)
            self.newest[user.number] = (user, one)
        self.day += days
        return self

    @property
    def names(self) -> dict[int, str]:
        return {one.id: one.name for one in self.learner.served.personas}

    def persona_of(self, kind: str) -> int:
        """The persona that most users of a kind have."""
        table = read_personas(self.learner.snapshot(0, 0, 0))
        given = [persona_id(table, one.features) for user, one in self.newest.values() if user.kind == kind]
        return max(set(given), key=given.count)


@pytest.fixture(scope="module")
def settled() -> World:
    """Two weeks of four kinds of users."""
    return World().live(14)


# -- what is found


def test_kinds_of_users_are_found_and_so_is_how_many_there_are(settled: World) -> None:
    # One more may be those of whom too little is known yet.
    assert len(KINDS) <= len(settled.learner.served.personas) <= len(KINDS) + 1
    assert len({settled.persona_of(kind) for kind in KINDS}) == len(KINDS)
    assert found_by(settled.learner, settled.newest) > 0.9
    assert settled.learner.served.silhouette > 0.4
    assert sum(one.share for one in settled.learner.served.personas) == pytest.approx(1.0, abs=1e-4)
    assert settled.learner.served.users == pytest.approx(200, rel=0.05)


def test_a_persona_is_called_by_what_tells_its_users_from_the_others(settled: World) -> None:
    names = {kind: settled.names[settled.persona_of(kind)] for kind in KINDS}
    assert "night-time" in names["night shoes"]
    assert "of shoes" in names["night shoes"]
    assert "frequent" in names["morning grocery"]
    assert "of grocery" in names["morning grocery"]
    assert "window-shoppers of fashion" in names["window shoppers"]
    assert "big-spending" in names["lunch tech"]
    assert "of tech" in names["lunch tech"]


def test_nobody_is_told_apart_before_there_are_enough_users_and_days() -> None:
    few = World(numbers={"night shoes": USERS_MIN // 2, "lunch tech": USERS_MIN // 2 - 1}).live(12)
    assert few.learner.vectors > 400
    assert few.learner.served.personas == []
    early = World().live(3)
    assert early.learner.vectors > 400
    assert early.learner.served.personas == []
    assert early.learner.snapshot(0, 0, 0).metrics["personas"] == 0


def test_there_are_no_more_personas_than_the_policy_allows_and_none_is_smaller() -> None:
    world = World(numbers={**dict.fromkeys(KINDS, 25), "lunch tech": 6})
    world.learner.configure(PersonaPlan(count_max=3, share_min=0.1))
    world.live(7)
    assert 2 <= len(world.learner.served.personas) <= 3
    assert min(one.share for one in world.learner.served.personas) >= 0.05


def test_a_policy_may_ask_for_more_personas_than_the_silhouette_would(settled: World) -> None:
    world = copy.deepcopy(settled)
    world.learner.configure(PersonaPlan(count_min=7, count_max=8))
    world.live(2)
    assert len(world.learner.served.personas) >= 7
    assert world.learner.served.silhouette < settled.learner.served.silhouette


# -- the same personas over time


def test_a_persona_moves_with_its_users_and_keeps_number_and_name(settled: World) -> None:
    world = copy.deepcopy(settled)
    before, shoes = world.names, world.persona_of("night shoes")
    world.live(9, {**KINDS, "night shoes": Kind(0.8, 4.5, 0.25, 60, {"shoes": 6, "boots": 4})})
    assert world.names.keys() == before.keys()
    assert world.persona_of("night shoes") == shoes
    assert world.names[shoes] == before[shoes]
    (moved,) = (one for one in report(world.learner.snapshot(0, 0, 0))["personas"] if one["id"] == f"p{shoes}")
    assert moved["drift"] > 0.2
    assert found_by(world.learner, world.newest) > 0.9


def test_new_users_of_another_kind_are_a_new_persona_and_the_others_stay(settled: World) -> None:
    world = copy.deepcopy(settled)
    before = set(world.names)
    world.users += [User(1000 + user.number, user.kind, user.busy) for user in people({"farmers": 60}, world.rng)]
    world.live(9, {**KINDS, "farmers": Kind(1.0, 5.0, 0.5, 900, {"seeds": 1}, device="web")})
    assert before < set(world.names)
    new = world.persona_of("farmers")
    assert new not in before
    assert "of seeds" in world.names[new]


def test_a_kind_that_goes_away_ends_and_its_number_is_not_given_again(settled: World) -> None:
    world = copy.deepcopy(settled)
    before, gone = set(world.names), world.persona_of("lunch tech")
    world.users = [user for user in world.users if user.kind != "lunch tech"]
    world.day += 70  # half-lives in which nobody is looked at: then those who are left count for more
    world.live(8)
    assert gone not in world.names
    (end,) = (change for change in world.learner.served.changes if change.kind == "ended" and change.id == gone)
    assert end.into in world.names
    assert world.learner.served.retired
    assert all(number in before or number > max(before) for number in world.names)
    assert world.learner._next_id > max(world.names)


def test_a_name_is_settled_when_the_persona_is_a_week_old(settled: World) -> None:
    now_ms = START + settled.day * DAY
    old = [one for one in settled.learner.served.personas if now_ms >= one.settles_ms + DAY]
    assert old
    assert all(one.settled for one in old)
    assert not any(one.settled for one in settled.learner.served.personas if now_ms < one.born_ms + SETTLE_MS)


# -- one writer, exactly once


def test_a_restored_learner_is_bit_for_bit_the_one_that_never_stopped() -> None:
    rng = Random(3)
    stream = [one for _, one in live(people(dict.fromkeys(KINDS, 30), rng), range(9), rng)]
    whole, stopped = PersonaLearner("open"), PersonaLearner("open")
    for at, one in enumerate(stream):
        whole.learn(one)
        if at % 97 == 0:
            stopped = PersonaLearner.restore(stopped.snapshot(at, 0, 0))
        stopped.learn(one)
    assert whole.served.personas
    assert stopped.snapshot(1, 2, 0) == whole.snapshot(1, 2, 0)


def test_a_vector_that_comes_again_teaches_nothing() -> None:
    learner = PersonaLearner("open")
    one = outcome(1, 1, {"recency_log_d": 1.0}, START)
    assert learner.learn(one)
    before = learner.snapshot(0, 0, 0)
    assert not learner.learn(one)
    assert learner.snapshot(0, 0, 0) == before


def test_with_many_users_only_a_share_of_them_is_to_teach() -> None:
    learner = PersonaLearner("open")
    learner.points = SimpleNamespace(learn=lambda _x, _at: None)  # type: ignore[assignment]
    for number in range(DAY_VECTORS_MAX):
        learner.learn(outcome(number, 0, {}, START))
    assert learner.served.share == 0.5
    for day in (1, 2):
        for number in range(10):
            learner.learn(outcome(number, day, {}, START + day * DAY))
    assert learner.served.share == 1.0
    assert learner.served.users < 100


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_a_value_that_is_no_number_does_no_harm(settled: World, value: float) -> None:
    learner = PersonaLearner.restore(settled.learner.snapshot(0, 0, 0))
    table = read_personas(learner.snapshot(0, 0, 0))
    for number in range(700):
        learner.learn(outcome(10**6 + number, 99, {"recency_log_d": value, "zz": value}, START + 14 * DAY))
    after = read_personas(learner.snapshot(0, 0, 0))
    assert set(after.columns) == set(table.columns)
    assert all(math.isfinite(part) for persona in after.personas for part in persona.centroid)


def test_one_user_weighs_no_more_than_another_whatever_they_do(settled: World) -> None:
    weight = settled.learner.points.weight
    assert weight <= settled.learner.vectors
    loud = dict.fromkeys(MEASURES, 20.0)
    learner = PersonaLearner.restore(settled.learner.snapshot(0, 0, 0))
    before = {one.id: one.share for one in learner.served.personas}
    for day in range(14, 20):
        learner.learn(outcome(5, day, loud, START + day * DAY))
    assert {one.id: one.share for one in learner.served.personas} == before


def test_columns_are_bounded_and_a_category_that_becomes_frequent_gets_one() -> None:
    points = MicroClusters()
    for number in range(1_000):
        points.learn({"k=old": 0.1, f"k=rare{number}": 0.5, f"d=x{number}": 1.0, "j=bad": 1.0}, START + number * 60_000)
    assert sum(name.startswith("k=") for name in points.names) == 12
    assert sum(name.startswith("d=") for name in points.names) == 4
    assert "j=bad" not in points.names
    for number in range(400):
        points.learn({"k=new": 0.9}, START + DAY + number)
    assert "k=new" in points.names
    assert len(points.names) == len(MEASURES) + 16
    assert points.size < POINTS_MAX


# -- the parts


def test_points_hold_the_weight_the_mean_and_the_variance_of_the_vectors() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(1_000, 2)) + rng.integers(0, 2, size=(1_000, 1)) * 5
    points = MicroClusters()
    for first, second in vectors:
        points.learn({"recency_log_d": float(first), "order_value_log": float(second)}, START)
    weights, size = points.weights[: points.size], points.size
    assert weights.sum() == pytest.approx(1_000)
    at = [points.names.index("recency_log_d"), points.names.index("order_value_log")]
    mean = weights @ points.means[:size, at] / 1_000
    assert mean == pytest.approx(vectors.mean(axis=0), abs=1e-3)
    spread = points.squares[:size, at].sum(axis=0) + weights @ (points.means[:size, at] - mean) ** 2
    assert spread / 1_000 == pytest.approx(vectors.var(axis=0), rel=1e-3)


def test_old_vectors_fade() -> None:
    points = MicroClusters()
    for number in range(100):
        points.learn({"recency_log_d": 1.0}, START + number)
    points.learn({"recency_log_d": 2.0}, START + 14 * DAY)
    assert points.weight == pytest.approx(51.0, rel=1e-3)
    points.learn({"recency_log_d": 2.0}, START + 200 * DAY)
    assert points.size < 3


def brute_silhouette(points: Any, labels: Sequence[int]) -> float:
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    scores = []
    for at, label in enumerate(labels):
        own = [distances[at, j] for j, other in enumerate(labels) if other == label and j != at]
        others = [
            np.mean([distances[at, j] for j, other in enumerate(labels) if other == cluster])
            for cluster in set(labels) - {label}
        ]
        scores.append((min(others) - np.mean(own)) / max(min(others), np.mean(own)) if own else 0.0)
    return float(np.mean(scores))


def test_the_silhouette_of_single_points_is_that_of_rousseeuw() -> None:
    rng = np.random.default_rng(5)
    points = rng.normal(size=(40, 3)) + np.repeat([[0.0], [3.0]], 20, axis=0)
    labels = np.repeat([0, 1], 20)
    found = silhouette(np.ones(40), between(points, np.zeros(40)), labels)
    assert found == pytest.approx(brute_silhouette(points, list(labels)))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_blobs_are_found_in_their_number(count: int) -> None:
    rng = np.random.default_rng(count)
    centres = rng.normal(size=(count, 6)) * 6
    points = np.concatenate([rng.normal(size=(25, 6)) + centre for centre in centres])
    found = clusterings(np.ones(len(points)), points, np.zeros(len(points)), 8, 0.03)
    best = max(found, key=lambda number: found[number].silhouette)
    assert best == count
    assert adjusted_rand(list(np.repeat(range(count), 25)), list(found[best].labels)) == pytest.approx(1.0)


def served(**columns: float) -> Served:
    """Columns with everybody's mean; a spread is 1."""
    scales = [MEASURES[name][0] if name in MEASURES else 3.0 for name in columns]
    return Served(columns=list(columns), scales=scales, population=list(columns.values()))


@pytest.mark.parametrize(
    ("mean", "name"),
    [
        ((2.0, 0.0, 0.3, 0.1), "frequent shoppers"),
        ((0.05, 0.0, 0.9, 0.8), "late-evening window-shoppers of shoes"),
        ((0.7, 1.5, 0.3, 0.1), "shoppers who open notifications"),
        ((0.7, -1.5, 0.9, 0.1), "late-evening shoppers who ignore notifications"),
        ((0.7, 0.0, 0.3, 0.1), "typical shoppers"),
    ],
)
def test_a_name_is_made_of_what_differs(mean: tuple[float, ...], name: str) -> None:
    population = served(**{"orders_month_log": 0.7, "open_logit": 0.0, "h=late evening": 0.3, "k=shoes": 0.1})
    assert name_of(mean, population, ()) == name


def test_a_name_of_a_shop_that_sells_nothing_is_of_visitors_and_holds_no_control_characters() -> None:
    population = served(**{"orders_month_log": 0.0, "k=News\n[b]\x07 of  the   day": 0.1})
    assert name_of((0.0, 0.9), population, ()) == "visitors of news [b] of the day"


def test_two_personas_never_share_a_name() -> None:
    population = served(**{"orders_month_log": 0.7, "k=shoes": 0.1})
    taken: set[str] = set()
    for _ in range(5):
        taken.add(name_of((0.7, 0.9), population, taken))
    assert len(taken) == 5


# -- the snapshot's way


def worker(secret: str = "s" * 32) -> tuple[Processor, ModelFeed, bytes, CollectorRegistry]:
    settings = Settings(secret=secret, broker="nowhere:1")  # type: ignore[arg-type]
    processor = Processor(make_plan(personas=PersonaPlan()), prior_scorer(), campaign_only)
    registry = CollectorRegistry()
    return processor, ModelFeed(processor, settings, Metrics(registry)), settings.secret_bytes(), registry


def test_a_worker_serves_the_newest_personas_and_shows_their_shares(settled: World) -> None:
    processor, feed, secret, registry = worker()
    snapshot = settled.learner.snapshot(0, 1_000, 0)
    feed.apply(None, encode_snapshot(snapshot, secret), 0)
    assert processor.personas == read_personas(snapshot)
    shares = [
        registry.get_sample_value("nudge_persona_share", {"persona": f"p{one.id}"})
        for one in settled.learner.served.personas
    ]
    assert sum(share or 0.0 for share in shares) == pytest.approx(1.0, abs=1e-4)
    feed.apply(
        None, encode_snapshot(msgspec.structs.replace(snapshot, version=9), b"another secret of 32 bytes....."), 1
    )
    assert processor.personas.version == snapshot.version


def test_personas_can_be_rolled_back_and_released(settled: World) -> None:
    processor, feed, secret, _ = worker()
    learner = PersonaLearner.restore(settled.learner.snapshot(0, 0, 0))
    kept = learner.keep(5)
    assert kept is not None
    assert kept.model == kept_name(personas_name("open"), 0)
    assert learner.keep(6) is None, "nothing has changed since"
    newest = msgspec.structs.replace(learner.snapshot(0, 7, 0), version=kept.version + 500)
    for one in (kept, newest):
        feed.apply(None, encode_snapshot(one, secret), 0)
    assert processor.personas.version == newest.version
    pin = pin_record(personas_name("open"), kept.version, Pin("operator"), 8)
    feed.apply(None, encode_snapshot(pin, secret), 0)
    assert processor.personas.version == kept.version
    feed.apply(None, encode_snapshot(msgspec.structs.replace(pin, version=0), secret), 0)
    assert processor.personas.version == newest.version
    book = ModelBook(secret)
    book.apply(encode_snapshot(newest, secret))
    assert book.models() == [personas_name("open")]


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"scales": [1.0]}, {"columns": ["a"] * 99}, {"population": [math.nan]}],
)
def test_a_snapshot_that_does_not_fit_is_refused(settled: World, change: dict[str, Any]) -> None:
    snapshot = settled.learner.snapshot(0, 0, 0)
    broken = ServedState(msgspec.structs.replace(settled.learner.served, **change))
    state = msgspec.json.encode(broken) if change != {"population": [math.nan]} else b"{}"
    for read in (read_personas, PersonaLearner.restore):
        with pytest.raises(BadModel):
            read(msgspec.structs.replace(snapshot, state=state))


def test_torn_points_are_refused(settled: World) -> None:
    snapshot = settled.learner.snapshot(0, 0, 0)
    state = msgspec.json.decode(snapshot.state)
    for field, value in (("weights", "AAAA"), ("names", ["a"]), ("means", "")):
        torn = {**state, "points": {**_points(state), field: value}}
        with pytest.raises(BadModel):
            PersonaLearner.restore(msgspec.structs.replace(snapshot, state=msgspec.json.encode(torn)))


def _points(state: dict[str, Any]) -> dict[str, Any]:
    points = state["points"]
    return points if isinstance(points, dict) else {}


class Sent:
    """A producer that remembers."""

    def __init__(self) -> None:
        self.snapshots: list[ModelSnapshot] = []
        self.durable_producer = self
        self.batches = SimpleNamespace(highwater=lambda _tp: None)

    async def send(self, _topic: str, _key: bytes, value: bytes) -> None:
        self.snapshots.append(decode_snapshot(value, b"secret"))


async def test_the_agent_learns_vectors_publishes_them_and_skips_what_a_snapshot_holds() -> None:
    app = Sent()
    service = LearnerService(app, b"secret", None, lambda: 2**42, interval_s=9.0)  # type: ignore[arg-type]
    state = service._partitions[0] = _Partition(0)
    world = World().live(6)
    vectors = [one for _, one in world.newest.values()]
    for offset, one in enumerate(vectors):
        service._learn(state, SimpleNamespace(value=encode_outcome(one), offset=offset))
    state.next_offset = len(vectors)
    await service.publish()
    (snapshot,) = app.snapshots
    assert (snapshot.model, snapshot.version, snapshot.next_offset) == ("open.personas", len(vectors), len(vectors))
    assert not state.learners, "a vector is no example"
    again = LearnerService(app, b"secret", None, lambda: 2**42, interval_s=9.0)  # type: ignore[arg-type]
    state = _Partition(0)
    again._resume_from(state, snapshot, snapshot.next_offset)
    again._learn(state, SimpleNamespace(value=encode_outcome(vectors[-1]), offset=len(vectors) - 1))
    assert state.personas["open"].vectors == len(vectors)
    assert not state.dirty_personas


def test_the_report_says_sizes_profiles_and_changes(settled: World) -> None:
    found = report(settled.learner.snapshot(0, 3, 0))
    assert [one["share"] for one in found["personas"]] == sorted(
        (one["share"] for one in found["personas"]), reverse=True
    )
    assert sum(one["users"] for one in found["personas"]) == pytest.approx(found["users"], abs=4)
    (tech,) = (one for one in found["personas"] if one["id"] == f"p{settled.persona_of('lunch tech')}")
    value = {trait["what"]: trait["value"] for trait in tech["traits"]}
    assert 150 < value["value of an order"] < 400
    assert value["interest in tech"] > 0.6
    assert {change["kind"] for change in found["changes"]} <= {"born", "renamed", "ended"}
    msgspec.json.encode(found)
    assert read_served(settled.learner.snapshot(0, 3, 0)).personas == settled.learner.served.personas
