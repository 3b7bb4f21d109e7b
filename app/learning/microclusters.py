"""A stream of vectors as a bounded set of weighted points: the online half of clustering.

Each vector begins as a point of its own. When there are `POINTS_MAX`, those pairs are merged that add least to the
variance (Ward's criterion) until `POINTS_MIN` are left: so there are many points where there are many users, with no
radius to tune, at an amortised cost of some ten microseconds a vector. A point holds weight, mean and variance, all in
the vectors' own units: scales may change, points need not.

Weights halve in `HALF_LIFE_MS` of event time, so the points are of the users of the last weeks.

References
----------
Zhang, Ramakrishnan, Livny, 1996: BIRCH (clustering features). Aggarwal, Han, Wang, Yu, 2003: CluStream (micro-clusters
in the stream, macro-clusters from them). Ackermann et al., 2012: StreamKM++ (merge and reduce).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from app.core.persona_vector import COMPOSITIONS, MEASURES

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

POINTS_MIN: Final = 96
POINTS_MAX: Final = 160
NAMED_MAX: Final = {"h": 6, "k": 12, "d": 4}
"""Parts of each composition that have a column; the rarest gives way to one that has become more frequent."""
WAITING_MAX: Final = 64
HALF_LIFE_MS: Final = 14 * 86_400_000
DECAY_STEP_MS: Final = 3_600_000
WEIGHT_MIN: Final = 0.05
VALUE_MAX: Final = 20.0
VARIANCE_MIN: Final = 0.02
"""A composition that varies less is taken to vary as much: noise must not be blown up."""
COME_MIN: Final = 8.0
WORTH: Final = 0.125
"""A part that came so often, each time taken for an eighth of someone's interest, may take the place of another."""


class PointsState(msgspec.Struct, array_like=True):
    """`MicroClusters` as plain numbers; matrices as little-endian float32."""

    names: list[str] = []
    weights: bytes = b""
    means: bytes = b""
    squares: bytes = b""
    scales: bytes = b""
    at_ms: int = 0
    waiting: dict[str, float] = {}
    present: dict[str, list[float]] = {}


class MicroClusters:
    """The points. Matrices have a row a point and a column a name; they are float32, as the snapshot holds them.

    Attributes
    ----------
    names
        What the columns are.
    size
        How many rows are points; the others are room for more.
    weights, means, squares
        Of each point: its weight, and by column the mean and the sum of squared deviations.
    scales
        By column, what a difference is multiplied with before it is squared.
    """

    def __init__(self) -> None:
        self.names: list[str] = list(MEASURES)
        self.size = 0
        self.weights: Floats = np.zeros(POINTS_MAX, np.float32)
        self.means: Floats = np.zeros((POINTS_MAX, len(self.names)), np.float32)
        self.squares: Floats = np.zeros((POINTS_MAX, len(self.names)), np.float32)
        self.scales: Floats = np.ones(len(self.names), np.float32)
        self.at_ms = 0
        self._waiting: dict[str, float] = {}
        self._present = {name: [0.0, 0.0] for name in MEASURES}
        self._column = {name: at for at, name in enumerate(self.names)}

    @property
    def weight(self) -> float:
        """Of all points."""
        return float(self.weights[: self.size].sum())

    def learn(self, x: Mapping[str, float], at_ms: int) -> None:
        """Add a vector. A value that is not finite is missing."""
        if at_ms >= self.at_ms + DECAY_STEP_MS:
            self._decay(at_ms)
        for name in x:
            if name not in self._column:
                self._meet(name)
        row = self.means[self.size]
        row[:] = self.usual()
        for name, value in x.items():
            at = self._column.get(name)
            if at is None or not math.isfinite(value):
                continue
            row[at] = bounded = min(max(value, -VALUE_MAX), VALUE_MAX)
            if (seen := self._present.get(name)) is not None:
                seen[0] += 1.0
                seen[1] += bounded
        self.weights[self.size] = 1.0
        self.size += 1
        if self.size == POINTS_MAX:
            self.rescale()
            self._reduce()

    def _decay(self, at_ms: int) -> None:
        if self.at_ms:
            factor = np.float32(0.5 ** min((at_ms - self.at_ms) / HALF_LIFE_MS, 1000.0))
            self.weights *= factor
            self.squares *= factor
            self._waiting = {name: count * float(factor) for name, count in self._waiting.items()}
            for seen in self._present.values():
                seen[0] *= float(factor)
                seen[1] *= float(factor)
            self._keep(self.weights >= WEIGHT_MIN)
        self.at_ms = at_ms

    def _keep(self, kept: npt.NDArray[np.bool_]) -> None:
        """Close the gaps that points leave; the room behind them is zero."""
        size = int(kept.sum())
        for array in (self.weights, self.means, self.squares):
            array[:size] = array[kept]
            array[size:] = 0.0
        self.size = size

    def _meet(self, name: str) -> None:
        """A part of a composition that has no column: it gets one, or waits until it is frequent enough."""
        kind, part, _ = name.partition("=")
        if not part or kind not in COMPOSITIONS:
            return
        same = [at for at, other in enumerate(self.names) if other.startswith(kind + "=")]
        if len(same) < NAMED_MAX[kind]:
            self.names.append(name)
            self._column[name] = len(self.names) - 1
            zeros = np.zeros((POINTS_MAX, 1), np.float32)
            self.means, self.squares = np.hstack((self.means, zeros)), np.hstack((self.squares, zeros))
            self.scales = np.append(self.scales, self.scales[same[0]] if same else np.float32(1.0))
            return
        count = self._waiting.pop(name, 0.0) + 1.0
        worth = [float((self.weights * self.means[:, at] ** 2).sum()) for at in same] if count >= COME_MIN else []
        if worth and count * WORTH > min(worth):
            at = same[worth.index(min(worth))]
            del self._column[self.names[at]]
            self.names[at] = name
            self._column[name] = at
            self.means[:, at] = self.squares[:, at] = 0.0
            return
        if len(self._waiting) >= WAITING_MAX:
            least = min(self._waiting, key=lambda other: (self._waiting[other], other))
            count += self._waiting.pop(least)  # as heavy hitters are counted: Space-Saving
        self._waiting[name] = count

    def usual(self) -> list[float]:
        """By column, what a vector that lacks it is taken to have."""
        means = {name: total / max(count, 1e-9) for name, (count, total) in self._present.items()}
        return [means.get(name, 0.0) for name in self.names]

    def rescale(self) -> None:
        """Scales from the points as they are: robust spreads of measures, whole variances of compositions."""
        if not self.size:
            return
        means = self.means[: self.size]
        weights = self.weights[: self.size] / self.weights[: self.size].sum()
        variance = weights @ ((means - weights @ means) ** 2) + self.squares.sum(axis=0) / self.weights.sum()
        scales = np.ones(len(self.names), np.float32)
        for at, (weight, least) in enumerate(MEASURES.values()):
            scales[at] = weight / max(_spread(means[:, at], weights, float(variance[at])), least)
        for kind, total in COMPOSITIONS.items():
            same = [at for at, name in enumerate(self.names) if name.startswith(kind + "=")]
            if same:
                scales[same] = math.sqrt(total / max(float(variance[same].sum()), VARIANCE_MIN))
        self.scales = scales

    def _reduce(self) -> None:
        """Merge the pair that costs least, until `POINTS_MIN` points are left."""
        scaled = self.means * self.scales
        cost = squared_distances(scaled, scaled) * _harmonic(self.weights[:, None], self.weights)
        np.fill_diagonal(cost, np.inf)
        kept = np.ones(POINTS_MAX, np.bool_)
        for _ in range(POINTS_MAX - POINTS_MIN):
            a, b = sorted(divmod(int(cost.argmin()), POINTS_MAX))
            self._merge(a, b)
            kept[b] = False
            cost[b] = cost[:, b] = np.inf
            scaled[a] = self.means[a] * self.scales
            row = ((scaled - scaled[a]) ** 2).sum(axis=1) * _harmonic(self.weights, self.weights[a])
            row[~kept] = row[a] = np.inf
            cost[a] = cost[:, a] = row
        self._keep(kept)

    def _merge(self, a: int, b: int) -> None:
        n, m = self.weights[a], self.weights[b]
        step = self.means[b] - self.means[a]
        self.weights[a] = n + m
        self.means[a] += step * (m / (n + m))
        self.squares[a] += self.squares[b] + step**2 * (n * m / (n + m))

    def scaled(self) -> tuple[Doubles, Doubles, Doubles]:
        """Weights, scaled means, and the variance within each point (of all columns together)."""
        weights = self.weights[: self.size].astype(np.float64)
        scales = self.scales.astype(np.float64)
        within = (self.squares[: self.size].astype(np.float64) @ scales**2) / weights
        return weights, self.means[: self.size].astype(np.float64) * scales, within

    def state(self) -> PointsState:
        """For a snapshot."""
        return PointsState(
            names=self.names,
            weights=_packed(self.weights[: self.size]),
            means=_packed(self.means[: self.size]),
            squares=_packed(self.squares[: self.size]),
            scales=_packed(self.scales),
            at_ms=self.at_ms,
            waiting=self._waiting,
            present=self._present,
        )

    @classmethod
    def restore(cls, state: PointsState) -> MicroClusters:
        """The points of `state`. Raises `ValueError` when the numbers do not fit each other."""
        made = cls()
        made.names = list(state.names)
        made._column = {name: at for at, name in enumerate(made.names)}
        if len(made._column) != len(made.names) or made.names[: len(MEASURES)] != list(MEASURES):
            raise ValueError("columns of another build")
        weights = _unpacked(state.weights)
        made.size = size = len(weights)
        if size >= POINTS_MAX:
            raise ValueError(f"{size} points; there are fewer than {POINTS_MAX}")
        columns = len(made.names)
        made.means, made.squares = (np.zeros((POINTS_MAX, columns), np.float32) for _ in range(2))
        made.weights[:size] = weights
        made.means[:size] = _unpacked(state.means).reshape(size, columns)
        made.squares[:size] = _unpacked(state.squares).reshape(size, columns)
        made.scales = _unpacked(state.scales).reshape(columns)
        made.at_ms = state.at_ms
        made._waiting = dict(state.waiting)
        if list(state.present) != list(MEASURES) or any(len(seen) != 2 for seen in state.present.values()):
            raise ValueError("means of other measures")
        made._present = {name: list(seen) for name, seen in state.present.items()}
        return made


def _packed(array: Floats) -> bytes:
    return array.astype("<f4").tobytes()


def _unpacked(raw: bytes) -> Floats:
    return np.frombuffer(raw, "<f4").astype(np.float32)


def _harmonic(a: Any, b: Any) -> Any:
    """What two weights make of a squared distance: the variance that merging them adds. 0 for none."""
    return a * b / np.maximum(a + b, np.float32(1e-30))


def _spread(values: Floats, weights: Floats, variance: float) -> float:
    """A standard deviation by the quartiles; where most values are equal, by the plain one."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    low, high = (float(values[order][min(int(np.searchsorted(share, q)), len(values) - 1)]) for q in (0.25, 0.75))
    return max((high - low) / 1.349, math.sqrt(max(variance, 0.0)) / 2.0)


def squared_distances(a: Any, b: Any) -> Any:
    """Of each row of `a` to each row of `b`, not below 0."""
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * (a @ b.T), 0.0)
