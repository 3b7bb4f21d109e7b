"""The single writer of personas: how many groups of users there are, what they are like, and which is which over time.

Vectors become weighted points as they come (`app.learning.microclusters`); now and then the points are clustered
(`app.learning.macroclusters`). How many clusters there are says the silhouette, and another number must be better by
`GAIN_MIN` at two looks in a row. While the number stands, clusters go on from their centroids, so a persona moves with
its users. When it changes, new clusters are matched with the old ones by the users they share (assignment problem): who
keeps most of a persona's users keeps its number and name; a persona that nobody continues has ended, and its number is
never used again. A name says what told the persona from the others when it was a week old, and stays.

Why not River's: its `KMeans` neither chooses how many nor scales, and its centroids are dice; `DBSTREAM` and
`CluStream` need a radius and k, and cannot be written down but as pickles. benchmarks/results-personas.md compares.

All that the learner knows is in its snapshot: a restored one is bit for bit the one that never stopped.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

import msgspec
import numpy as np
from scipy.optimize import linear_sum_assignment

from app.core.ids import message_hash
from app.core.personas import BUCKET
from app.core.plan import PersonaPlan
from app.learning.book import KEPT_MAX, NOWHERE, kept_name
from app.learning.buckets import bucket_of
from app.learning.contract import BadModel
from app.learning.macroclusters import Array, Clustering, Labels, beginning_at, clusterings
from app.learning.microclusters import MicroClusters, PointsState, squared_distances
from app.learning.persona_names import name_of
from app.learning.served_personas import SUFFIX, Change, Known, Served, ServedState, check
from schemas.models import ModelSnapshot
from schemas.outcomes import Outcome

RECENT_MAX: Final = 1024
VECTORS_MIN: Final = 200
USERS_MIN: Final = 50
WARM_UP_MS: Final = 3 * 86_400_000
"""Nobody is told apart before so many vectors of so many users (hash buckets of them) have come, in so much time."""
EVERY_MIN: Final = 100
EVERY_SHARE: Final = 0.05
"""Points are clustered again after so many vectors, and this share of the weight that there is."""
GAIN_MIN: Final = 0.01
JUMP: Final = 0.97
"""A clustering from scratch replaces the one that goes on, of as many clusters, only when it leaves so much less."""
OVERLAP_MIN: Final = 0.25
"""Jaccard index of the users of a new and an old persona below which they are not the same."""
SAME_MIN: Final = 0.6
"""Below this it is the same, but so changed that it is named anew, as one that is just found is."""
SETTLE_MS: Final = 7 * 86_400_000
"""After so long a new persona gets the name that it keeps, whatever becomes of it."""
DAY_MS: Final = 86_400_000
DAY_VECTORS_MAX: Final = 20_000
CHANGES_MAX: Final = 40
DIGITS: Final = 6


class PersonasState(ServedState):
    """A snapshot's state."""

    points: PointsState = msgspec.field(default_factory=PointsState)
    vectors: int = 0
    due: int = VECTORS_MIN
    first_ms: int = 0
    next_id: int = 1
    wish: int = 0
    day: int = 0
    day_vectors: int = 0
    users: list[int] = msgspec.field(default_factory=list)
    kept: list[list[int]] = msgspec.field(default_factory=list)
    kept_ids: list[int] = msgspec.field(default_factory=list)
    recent: bytes = b""


class PersonaLearner:
    """The personas of one model's policy.

    Parameters
    ----------
    name
        The model's name; the snapshot's is that and `SUFFIX`.

    Attributes
    ----------
    served
        What there is to know of the personas, as workers have it from the next snapshot on.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.points = MicroClusters()
        self.served = Served()
        self.vectors = 0
        self._plan = PersonaPlan()
        self._due = VECTORS_MIN
        self._first_ms = 0
        self._next_id = 1
        self._wish = 0
        self._day = 0
        self._day_vectors = 0
        self._users: list[int] = []
        self._kept: list[list[int]] = []
        self._kept_ids: list[int] = []
        self._recent: deque[int] = deque(maxlen=RECENT_MAX)
        self._known: set[int] = set()

    def configure(self, plan: PersonaPlan) -> None:
        """What the policy says of personas. May be said again."""
        self._plan = plan

    def learn(self, outcome: Outcome) -> bool:
        """Take in a user's vector. False when it was taken in before."""
        if not self._remember(message_hash(outcome.id)):
            return False
        x = dict(outcome.features)
        user = bucket_of(x)
        x.pop(BUCKET, None)
        if user not in self._users and len(self._users) < USERS_MIN:
            self._users.append(user)
        self.vectors += 1
        self._count(outcome.decided_ms)
        self.points.learn(x, outcome.decided_ms)
        self._first_ms = min(self._first_ms, outcome.decided_ms) if self._first_ms else outcome.decided_ms
        if self._is_due(outcome.decided_ms):
            self._cluster(outcome.decided_ms)
            self._due = self.vectors + max(EVERY_MIN, int(EVERY_SHARE * self.points.weight))
        return True

    def _is_due(self, at_ms: int) -> bool:
        known = len(self._users) == USERS_MIN and at_ms >= self._first_ms + WARM_UP_MS
        return known and self.vectors >= self._due

    def _remember(self, key: int) -> bool:
        if key in self._known:
            return False
        if len(self._recent) == RECENT_MAX:
            self._known.discard(self._recent[0])
        self._recent.append(key)
        self._known.add(key)
        return True

    def _count(self, at_ms: int) -> None:
        """How many users there are a day, and which share of them is to teach."""
        day = at_ms // DAY_MS
        if day > self._day:
            if day == self._day + 1:
                self.served.users = self._day_vectors / self.served.share
                if self._day_vectors < DAY_VECTORS_MAX // 4:
                    self.served.share = min(1.0, self.served.share * 2.0)
            self._day, self._day_vectors = day, 0
        self._day_vectors += 1
        if self._day_vectors >= DAY_VECTORS_MAX:
            self.served.share, self._day_vectors = max(self.served.share / 2.0, 2.0**-20), 0

    # -- clusters

    def _cluster(self, at_ms: int) -> None:
        self.points.rescale()
        weights, points, within = self.points.scaled()
        plan, served = self._plan, self.served
        found = clusterings(weights, points, within, plan.count_max, plan.share_min)
        # Of fewer than the policy asks for the most, when there cannot be so many without tiny ones.
        enough = [count for count in found if count >= plan.count_min] or [max(found)]
        best = max(enough, key=lambda count: (found[count].silhouette, -count))
        own = self._continued(weights, points, within)
        chosen = found[best] if own is None else own
        if own is not None:
            same = found.get(len(own.centroids))
            if same is not None and same.inertia < JUMP * own.inertia:
                chosen = same
        few = len(chosen.centroids) < min(enough)
        wish = best if own is None or few or found[best].silhouette > chosen.silhouette + GAIN_MIN else 0
        if wish and wish == self._wish:
            chosen, self._wish = found[best], 0
        else:
            self._wish = wish
            if own is None:
                return  # the first time, too, it must be found twice
        served.silhouette = chosen.silhouette
        served.silhouettes = {count: round(one.silhouette, DIGITS) for count, one in sorted(found.items())}
        self._take(chosen, weights, points, within, at_ms)

    def _centroids(self) -> Array:
        """The present personas' centroids by the points' columns, scaled. A column that is new to them is 0."""
        rows = [self._arranged(one.centroid, self.served.columns) for one in self.served.personas]
        return np.array(rows, np.float64) * self.points.scales

    def _arranged(self, row: list[float], columns: list[str]) -> list[float]:
        """A row of other columns by those of the points; what it lacks is 0."""
        value = dict(zip(columns, row, strict=True))
        return [value.get(name, 0.0) for name in self.points.names]

    def _continued(self, weights: Array, points: Array, within: Array) -> Clustering | None:
        """The clustering that goes on from the present personas; None without any."""
        if not self.served.personas:
            return None
        share_min = self._plan.share_min / 2.0  # whoever is there already may be smaller before they end
        return beginning_at(weights, points, within, self._centroids(), share_min)

    def _take(self, chosen: Clustering, weights: Array, points: Array, within: Array, at_ms: int) -> None:
        """Give the clusters the numbers and names of those whom they continue."""
        served, old = self.served, self.served.personas
        before = squared_distances(points, self._centroids()).argmin(axis=1) if old else None
        heirs = _heirs(weights, before, chosen.labels, len(old), len(chosen.centroids))
        columns, served.columns = served.columns, list(self.points.names)
        served.scales = [round(float(scale), DIGITS) for scale in self.points.scales]
        served.usual = [round(value, DIGITS) for value in self.points.usual()]
        means = points / self.points.scales
        served.population = [round(float(value), DIGITS) for value in np.average(means, axis=0, weights=weights)]
        taken = {one.name for one in old} | set(served.retired)
        personas = []
        for at, centroid in enumerate(chosen.centroids):
            mine = chosen.labels == at
            row = [round(float(value), DIGITS) for value in centroid / self.points.scales]
            share = float(weights[mine].sum() / weights.sum())
            spread = squared_distances(points[mine], centroid[None])[:, 0] + within[mine]
            width = float(np.sqrt(np.average(spread, weights=weights[mine])))
            heir, alike = heirs.get(at, (None, 0.0))
            if heir is None:
                name = name_of(row, served, taken)
                taken.add(name)
                known = Known(self._next_id, name, at_ms, row, row, share_born=share, settles_ms=at_ms + SETTLE_MS)
                self._next_id += 1
                self._changed(Change(at_ms, "born", known.id, name))
            else:
                known = old[heir]
                known.named = self._arranged(known.named, columns)
                if alike < SAME_MIN:
                    known.settled, known.settles_ms = False, at_ms + SETTLE_MS
                    self._rename(known, row, taken, at_ms)
                elif not known.settled and at_ms >= known.settles_ms:
                    known.settled = True
                    self._rename(known, row, taken, at_ms)
            known.centroid, known.share, known.within = row, round(share, DIGITS), round(width, DIGITS)
            personas.append(known)
        if old and before is not None:
            self._end(heirs, before, chosen.labels, weights, personas, at_ms)
        served.personas = sorted(personas, key=lambda one: one.id)

    def _rename(self, known: Known, row: list[float], taken: set[str], at_ms: int) -> None:
        """Call a persona by what it has turned out to be: it has stood a week, or is much changed."""
        known.named = row
        name = name_of(row, self.served, taken - {known.name})
        if name != known.name:
            known.name = name
            taken.add(name)
            self._changed(Change(at_ms, "renamed", known.id, name))

    def _end(
        self,
        heirs: dict[int, tuple[int, float]],
        before: Labels,
        after: Labels,
        weights: Array,
        personas: list[Known],
        at_ms: int,
    ) -> None:
        """Say which personas have ended, who took their users, and how many users have another persona now."""
        old = self.served.personas
        continued_by = {at: heir for at, (heir, _) in heirs.items()}
        for at, known in enumerate(old):
            if at in continued_by.values():
                continue
            shares = np.bincount(after[before == at], weights[before == at], len(personas))
            into = personas[int(shares.argmax())].id if shares.any() else 0
            self._changed(Change(at_ms, "ended", known.id, known.name, into))
            if known.settled:
                self.served.retired = [*self.served.retired, known.name][-CHANGES_MAX:]
        continued = np.array([continued_by.get(at, -1) for at in range(len(personas))])
        if set(continued_by.values()) != set(range(len(old))) or len(personas) != len(old):
            self.served.moved = round(float(weights[continued[after] != before].sum() / weights.sum()), DIGITS)

    def _changed(self, change: Change) -> None:
        self.served.changes = [*self.served.changes, change][-CHANGES_MAX:]

    # -- snapshots

    @property
    def version(self) -> int:
        """Vectors taken in: the same ones give the same version, in whatever process."""
        return self.vectors

    def metrics(self) -> dict[str, float]:
        """Figures of the snapshot; shares by ``share_p`` and number."""
        served = self.served
        figures = {"vectors": float(self.vectors), "personas": float(len(served.personas))}
        figures |= {"silhouette": served.silhouette, "users": served.users, "moved": served.moved}
        figures["changes"] = float(self._next_id - 1)
        return figures | {f"share_p{one.id}": one.share for one in served.personas}

    def snapshot(self, next_offset: int, now_ms: int, partition: int) -> ModelSnapshot:
        """The whole state, unsigned; arguments as of `Learner.snapshot`."""
        state = PersonasState(
            served=self.served,
            points=self.points.state(),
            vectors=self.vectors,
            due=self._due,
            first_ms=self._first_ms,
            next_id=self._next_id,
            wish=self._wish,
            day=self._day,
            day_vectors=self._day_vectors,
            users=self._users,
            kept=self._kept,
            kept_ids=self._kept_ids,
            recent=struct.pack(f">{len(self._recent)}q", *self._recent),
        )
        return ModelSnapshot(
            model=self.name + SUFFIX,
            version=self.version,
            partition=partition,
            next_offset=next_offset,
            created_ms=now_ms,
            state=msgspec.json.encode(state),
            metrics=self.metrics(),
        )

    def keep(self, now_ms: int) -> ModelSnapshot | None:
        """The personas as a version to go back to, whenever others were found; the oldest gives way."""
        ids = [one.id for one in self.served.personas]
        if not ids or ids == self._kept_ids:
            return None
        slot = len(self._kept) if len(self._kept) < KEPT_MAX else min(self._kept, key=lambda kept: kept[1])[0]
        self._kept = [kept for kept in self._kept if kept[0] != slot] + [[slot, self.version]]
        self._kept_ids = ids
        return ModelSnapshot(
            model=kept_name(self.name + SUFFIX, slot),
            version=self.version,
            partition=NOWHERE,
            next_offset=0,
            created_ms=now_ms,
            state=msgspec.json.encode(ServedState(self.served)),
            metrics=self.metrics(),
        )

    @classmethod
    def restore(cls, snapshot: ModelSnapshot) -> PersonaLearner:
        """The learner that took this snapshot. Raises `BadModel`."""
        learner = cls(snapshot.model.removesuffix(SUFFIX))
        try:
            state = msgspec.json.decode(snapshot.state, type=PersonasState)
            check(state.served, snapshot.model)
            learner.points = MicroClusters.restore(state.points)
            learner._recent.extend(struct.unpack(f">{len(state.recent) // 8}q", state.recent))
        except (msgspec.MsgspecError, ValueError, struct.error) as exc:
            raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
        learner.served = state.served
        learner.vectors, learner._due, learner._first_ms = state.vectors, state.due, state.first_ms
        learner._next_id, learner._wish = state.next_id, state.wish
        learner._day, learner._day_vectors = state.day, state.day_vectors
        learner._users = state.users
        learner._kept, learner._kept_ids = state.kept, state.kept_ids
        learner._known = set(learner._recent)
        return learner


def _heirs(weights: Array, before: Labels | None, after: Labels, old: int, new: int) -> dict[int, tuple[int, float]]:
    """Of each new cluster the old one that it continues, and how many users they share (Jaccard index)."""
    if before is None:
        return {}
    both = np.zeros((new, old))
    np.add.at(both, (after, before), weights)
    either = both.sum(axis=1)[:, None] + both.sum(axis=0) - both
    alike = both / np.maximum(either, 1e-12)
    rows, columns = linear_sum_assignment(-alike)
    return {
        int(row): (int(column), float(alike[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if alike[row, column] >= OVERLAP_MIN
    }
