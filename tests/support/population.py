"""A population of known kinds: vectors of users as a worker would compute them, day by day."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from app.core.activity import Activity, fold
from app.core.interest import added, level_at
from app.core.persona_vector import vector_of
from app.core.profile import Profile
from schemas.outcomes import NO_EXAMPLE, Outcome

DAY = 86_400_000
HOUR = 3_600_000
START = 1_772_409_600_000  # 2026-03-02 00:00 UTC


@dataclass(frozen=True)
class Kind:
    """How often people of a kind come, at what hour, how likely a visit ends in an order and of what worth, and of what
    they look at.
    """

    visits_day: float
    hour: float
    buys: float
    value: float
    categories: Mapping[str, float]
    spread_h: float = 1.5
    device: str = "ios"


KINDS: Mapping[str, Kind] = {
    "night shoes": Kind(0.8, 1.5, 0.25, 60, {"shoes": 8, "bags": 2}),
    "morning grocery": Kind(1.0, 8.0, 0.6, 25, {"grocery": 9, "drinks": 1}, device="android"),
    "window shoppers": Kind(1.2, 21.0, 0.01, 30, {"fashion": 5, "bags": 3, "shoes": 2}, spread_h=2.0),
    "lunch tech": Kind(0.4, 13.0, 0.3, 300, {"tech": 9, "games": 1}, spread_h=1.0, device="android"),
}


@dataclass
class User:
    """Someone of a kind, and what their row would hold."""

    number: int
    kind: str
    busy: float
    profile: Profile = field(default_factory=Profile)
    activity: Activity = field(default_factory=Activity)


def people(numbers: Mapping[str, int], rng: Random) -> list[User]:
    """So many users of each kind, in a random order."""
    kinds = [kind for kind, number in numbers.items() for _ in range(number)]
    rng.shuffle(kinds)
    return [User(number, kind, math.exp(rng.gauss(0.0, 0.35))) for number, kind in enumerate(kinds)]


def live(
    users: Sequence[User], days: range, rng: Random, kinds: Mapping[str, Kind] = KINDS
) -> Iterator[tuple[User, Outcome]]:
    """Let the users live those days; after each day the vector of each who was ever there."""
    for day in days:
        for user in users:
            _day(user, kinds[user.kind], day, rng)
        now_ms = START + (day + 1) * DAY
        for user in users:
            if user.activity.at_ms:
                yield user, outcome(user.number, day, vector_of(user.profile, user.activity, now_ms), now_ms)


def outcome(number: int, day: int, x: Mapping[str, float], at_ms: int, model: str = "open") -> Outcome:
    """The record that brings a vector to the learner."""
    return Outcome(
        id=f"{number}/{day}",
        model=model,
        label=NO_EXAMPLE,
        features={**x, "bucket": float(number)},
        score=0.0,
        model_version=0,
        campaign="",
        decided_ms=at_ms,
        matured_ms=at_ms,
        persona=0,
    )


def _day(user: User, kind: Kind, day: int, rng: Random) -> None:
    profile, activity = user.profile, user.activity
    for _ in range(4):
        if rng.random() >= kind.visits_day * user.busy / 4:
            continue
        at_ms = START + day * DAY + int((kind.hour + rng.gauss(0.0, kind.spread_h)) % 24 * HOUR)
        profile.first_ms = profile.first_ms or at_ms
        profile.device = kind.device
        for _ in range(rng.randint(1, 4)):
            fold(activity, at_ms, at_ms // HOUR % 24)
            _look_at(profile, rng.choices(list(kind.categories), list(kind.categories.values()))[0], at_ms)
        if rng.random() < kind.buys:
            profile.orders += 1
            profile.revenue_milli += int(1000 * kind.value * math.exp(rng.gauss(0.0, 0.4)))
            profile.order_ms = max(profile.order_ms, at_ms)


def _look_at(profile: Profile, category: str, at_ms: int) -> None:
    known, level = profile.affinity.get(category), level_at(at_ms)
    profile.affinity[category] = level if known is None else added(known, level)


def adjusted_rand(one: Sequence[object], other: Sequence[object]) -> float:
    """Hubert and Arabie's index: 1 for the same partition, 0 expected of chance."""
    pairs = _pairs(list(zip(one, other, strict=True)))
    ones, others, whole = _pairs(one), _pairs(other), math.comb(len(one), 2)
    chance = ones * others / whole
    most = (ones + others) / 2
    return (pairs - chance) / (most - chance) if most != chance else 1.0


def _pairs(labels: Sequence[object]) -> int:
    counts: dict[object, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return sum(math.comb(count, 2) for count in counts.values())
