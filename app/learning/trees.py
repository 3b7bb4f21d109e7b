"""The mixture with trees: small trees, grown online, that learn what the mixture gets wrong.

    features -> mixture (`app.learning.mix`) -> + share * (tree 1 + tree 2) -> P(open)

The mixture is additive: it cannot say that one number matters only where another is high. A tree can, but learns
slowly what a line says at once. So the trees are told the mixture's log-odds, begin at 0 and split only where the
gradients that are left prove that it pays; each tree learns what those before it leave (boosting). Their share in the
prediction is learned by how well they do, so where there is nothing to find, nothing is added.

River has such trees (`SGTClassifier`), but without a starting point to correct, ten times as slow, not bounded, and to
be written down only as pickles: measured in benchmarks/results-learning.md.

References
----------
Gouk, Pfahringer, Frank, 2019: Stochastic Gradient Trees.
Friedman, 2001: Greedy Function Approximation: a Gradient Boosting Machine.
Chen, Guestrin, 2016: XGBoost, equation 7 (what a split saves).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec
import numpy as np

from app.learning.logistic import FASTER, VALUE_MAX, capped_weight, log_loss, sigmoid
from app.learning.mix import MixModel
from app.learning.trees_state import (
    LEAF,
    PRESENT,
    Column,
    FrozenTrees,
    Tree,
    TreesConfig,
    TreesState,
    freeze,
    read_state,
    stump,
    untaught,
)

BLOCK: Final = 64
"""Examples that go into the histograms together: one NumPy call for all of them."""
FRESH: Final = 256
"""Values of a number from which its bins are made."""
AGAIN: Final = 8
"""Bins are made anew when a number was seen so many times as often as at the last time."""
STALE_BLOCKS: Final = 200
"""A column that was not seen for so many blocks, and that no tree asks for, may be given to another number."""
VALUE_CLIP: Final = 4.0
GAIN_MEMORY: Final = 20_000.0
SHARE_MIN: Final = 1e-3

Array = np.ndarray[Any, Any]


class TreesModel:
    """P(open) by the mixture and trees that correct it.

    Examples
    --------
    >>> model = TreesModel()
    >>> round(model.predict_proba_one({"a": 1.0}), 3)
    0.15
    """

    config: TreesConfig
    _mix: MixModel
    _frozen: FrozenTrees | None
    _trees: list[Tree]
    _share: float
    _columns: list[Column]
    _names: list[str]
    _where: dict[str, int]
    _edges: Array
    """Of each column's bins, shape (columns, bins - 2); infinite where there are fewer."""
    _histograms: Array
    _blocks: int
    _resets: int
    _rows: list[float]
    _leaves: list[list[tuple[int, float, float]]]
    """Of each example that is not counted yet: in each tree the leaf, the gradient and p (1 - p)."""

    def __init__(self, config: TreesConfig | None = None) -> None:
        self._build(untaught(config or TreesConfig()))

    @property
    def examples(self) -> int:
        """Learned so far."""
        return self._mix.examples

    # -- learning

    def learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> None:
        """See `Model.learn_one`."""
        self.predict_learn_one(x, y, w)

    def predict_learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> float:
        """See `Model.predict_learn_one`."""
        w = capped_weight(w)
        if not w:
            return self.predict_proba_one(x)
        if not self._leaves:
            self._meet(x)
        self._frozen = None
        p = self._mix.predict_learn_one(x, y, w)
        logit = math.log(p / (1.0 - p))
        get = x.get
        row = [get(name, math.nan) for name in self._names]
        found: list[tuple[int, float, float]] = []
        told = logit
        for tree in self._trees:
            at = _leaf(tree, row)
            before = told
            told += tree.value[at]
            p = sigmoid(told)
            gradient, curvature = w * (p - y), w * p * (1.0 - p)
            found.append((at, gradient, curvature))
            if told != before:
                saved = log_loss(sigmoid(before), y) - log_loss(p, y)
                tree.gain += w * saved - tree.gain / GAIN_MEMORY
        added = told - logit
        p = sigmoid(logit + self._share * added)
        if added:
            self._weigh(added, w * (p - y))
        for tree, (at, gradient, curvature) in zip(self._trees, found, strict=True):
            self._step(tree, at, gradient, curvature)
        self._rows += row
        self._leaves.append(found)
        if len(self._leaves) >= BLOCK:
            self._count()
        return p

    def _step(self, tree: Tree, at: int, gradient: float, curvature: float) -> None:
        """Newton's step of a leaf, by all evidence that it remembers."""
        config = self.config
        tree.evidence[at] = evidence = min(tree.evidence[at] + curvature, config.memory)
        value = tree.value[at] - gradient / (evidence + config.ridge)
        tree.value[at] = min(max(value, -VALUE_CLIP), VALUE_CLIP)
        tree.seen[at] += 1

    def _weigh(self, added: float, error: float) -> None:
        """Exponentiated gradient of two experts: the mixture with the trees, and without."""
        up = self._share * math.exp(-self.config.share_rate * error * min(max(added, -VALUE_CLIP), VALUE_CLIP))
        self._share = min(max(up / (up + 1.0 - self._share), SHARE_MIN), 1.0 - SHARE_MIN)

    def learn_faster(self, name: str = "") -> None:
        """See `Model.learn_faster`."""
        self._mix.learn_faster(name)
        if name:
            return
        self._frozen = None
        self._histograms *= np.float32(FASTER)
        for tree in self._trees:
            tree.evidence = [evidence * FASTER for evidence in tree.evidence]

    def shrink(self) -> bool:
        """See `Model.shrink`: what the trees see is bounded already."""
        self._frozen = None
        return self._mix.shrink()

    # -- which numbers the trees see

    def _meet(self, x: Mapping[str, float]) -> None:
        """Take in numbers that are new; asked once a block."""
        for name in x:
            if "=" in name or name in self._where:
                continue
            at = len(self._columns) if len(self._columns) < self.config.columns else self._free()
            if at is None:
                return
            if at < len(self._columns):
                del self._where[self._columns[at].name]
                self._columns[at] = Column(name)
                self._histograms[:, at] = 0.0
            else:
                self._columns.append(Column(name))
            self._columns[at].seen_at = self._blocks
            self._where[name] = at
            self._names = [column.name for column in self._columns]
            self._edges[at] = np.inf

    def _free(self) -> int | None:
        """The column that was not seen for longest, if that is long enough and no tree needs it."""
        used = {column for tree in self._trees for column in tree.column}
        unused = [at for at in range(len(self._columns)) if at not in used]
        oldest = min(unused, key=lambda at: self._columns[at].seen_at, default=None)
        if oldest is None or self._columns[oldest].seen_at > self._blocks - STALE_BLOCKS:
            return None
        return oldest

    def _sort(self, values: Array) -> Array:
        """The bin of each value, shape (examples, columns); first makes the bins of columns where they are due."""
        known = ~np.isnan(values)
        for at, count in enumerate(known.sum(axis=0).tolist()):
            if not count:
                continue
            column = self._columns[at]
            column.seen_at = self._blocks
            column.count += count
            column.due = column.due or FRESH
            if column.count > column.due - FRESH:
                column.fresh = (column.fresh + values[known[:, at], at].tolist())[-FRESH:]
            if column.count >= column.due:
                self._make_bins(at, column)
        bins: Array = (values[:, :, None] > self._edges[None, : len(self._columns)]).sum(axis=2) + 1
        bins[~known] = 0
        return bins

    def _make_bins(self, at: int, column: Column) -> None:
        """Bins of the newest values. What was counted in others is forgotten; the trees' cuts are values, and stay."""
        edges = self._edges_of(column.fresh)
        column.fresh, column.due = [], column.count * AGAIN
        if edges == column.edges:
            return
        column.edges = edges
        self._histograms[:, at] = 0.0
        self._edges[at] = np.inf
        self._edges[at, : len(edges)] = edges

    def _edges_of(self, values: list[float]) -> list[float]:
        """Edges of the bins, below the largest value, each once: half quantiles, half even; none of equal values.

        Quantiles alone are coarse where few values are, and a few may be the ones that matter: who was here just now.
        """
        count = self.config.bins - 2
        low, high = min(values), max(values)
        even = count // 2
        quantiles = np.quantile(values, np.arange(1, count - even + 1) / (count - even + 1))
        edges = np.unique(np.concatenate([quantiles, np.linspace(low, high, even + 2)[1:-1]]))
        found: list[float] = edges[edges < high].tolist()
        return found

    # -- growing

    def _count(self) -> None:
        """Take a block into the histograms, and split the leaves that have seen enough."""
        columns, bins = len(self._columns), self.config.bins
        values = np.array(self._rows).reshape(len(self._leaves), columns)
        values[~(np.abs(values) <= VALUE_MAX)] = np.nan
        sorted_ = self._sort(values) + np.arange(columns) * bins
        size = columns * bins
        for number, tree in enumerate(self._trees):
            found = [leaves[number] for leaves in self._leaves]
            slots = np.array([tree.slot[at] for at, _, _ in found])
            first = number * self.config.leaves
            places = ((slots - first)[:, None] * size + sorted_).ravel()
            for side in (0, 1):
                sums = np.repeat([leaf[1 + side] for leaf in found], columns)
                added = np.bincount(places, sums, self.config.leaves * size)
                part = self._histograms[first : first + self.config.leaves, :columns, :, side]
                part += added.reshape(part.shape).astype(np.float32)
        self._rows, self._leaves = [], []
        self._blocks += 1
        for number, tree in enumerate(self._trees):
            if tree.gain < -self.config.reset:
                self._begin_anew(number)
                continue
            for at in range(len(tree.column)):
                if tree.column[at] == LEAF and tree.seen[at] >= self.config.grace:
                    self._ask(number, tree, at)

    def _begin_anew(self, number: int) -> None:
        first = number * self.config.leaves
        self._trees[number] = stump(first)
        self._histograms[first : first + self.config.leaves] = 0.0
        self._resets += 1

    def _ask(self, number: int, tree: Tree, at: int) -> None:
        """Split the leaf where that saves most, if it saves enough."""
        tree.seen[at] = 0
        own = self._histograms[tree.slot[at], : len(self._columns)].astype(np.float64)
        whole = own.sum(axis=1)
        if len(tree.column) + 2 < 2 * self.config.leaves and len(own):
            ridge = self.config.ridge
            left = own.cumsum(axis=1)[:, :-1]
            right = whole[:, None] - left
            saved = _saves(left, ridge) + _saves(right, ridge) - _saves(whole, ridge)[:, None]
            best = int(saved.argmax())
            column, cut = divmod(best, self.config.bins - 1)
            if saved[column, cut] > self.config.gain_min:
                self._split(number, tree, at, column, cut, (left[column, cut], right[column, cut]))
                return
        if whole[:, 1].max(initial=0.0) > self.config.memory:
            self._histograms[tree.slot[at]] *= np.float32(0.5)

    def _split(self, number: int, tree: Tree, at: int, column: int, cut: int, sides: tuple[Array, Array]) -> None:
        slot = tree.slot[at]
        slots = (slot, number * self.config.leaves + (len(tree.column) + 1) // 2)
        tree.column[at] = column
        tree.cut[at] = float(self._edges[column, cut - 1]) if cut else PRESENT
        tree.left[at] = len(tree.column)
        for (gradient, curvature), own in zip((side.tolist() for side in sides), slots, strict=True):
            value = tree.value[at] - gradient / (curvature + self.config.ridge)
            tree.column.append(LEAF)
            tree.cut.append(0.0)
            tree.left.append(0)
            tree.value.append(min(max(value, -VALUE_CLIP), VALUE_CLIP))
            tree.evidence.append(min(max(curvature, 0.0), self.config.memory))
            tree.seen.append(0)
            tree.slot.append(own)
            self._histograms[own] = 0.0

    # -- asking

    def predict_proba_one(self, x: Mapping[str, float]) -> float:
        """See `Model.predict_proba_one`."""
        return self._asked().open_probability(x)

    def explain_one(self, x: Mapping[str, float]) -> dict[str, float]:
        """See `Model.explain_one`."""
        return self._asked().explain_one(x)

    def _asked(self) -> FrozenTrees:
        if self._frozen is None:
            self._frozen = self.freeze(0)
        return self._frozen

    def freeze(self, version: int) -> FrozenTrees:
        """See `Model.freeze`."""
        return freeze(self._state(), version)

    @property
    def share(self) -> float:
        """How much of the trees' log-odds is added to the mixture's."""
        return self._share

    @property
    def splits(self) -> int:
        """How many splits the trees have."""
        return sum(len(tree.column) // 2 for tree in self._trees)

    # -- state

    def _build(self, state: TreesState) -> None:
        self.config = state.config
        self._mix = MixModel.of_state(state.mix)
        self._frozen = None
        self._trees = state.trees
        self._columns = state.columns
        self._names = [column.name for column in state.columns]
        self._where = {name: at for at, name in enumerate(self._names)}
        self._share = state.share
        self._blocks = state.blocks
        self._resets = state.resets
        config, columns = state.config, len(state.columns)
        self._edges = np.full((config.columns, config.bins - 2), np.inf)
        for at, column in enumerate(state.columns):
            self._edges[at, : len(column.edges)] = column.edges
        slots = config.trees * config.leaves
        self._histograms = np.zeros((slots, config.columns, config.bins, 2), dtype=np.float32)
        kept = np.frombuffer(state.histograms, dtype="<f4")
        self._histograms[:, :columns] = kept.reshape(slots, columns, config.bins, 2)
        self._rows = np.frombuffer(state.pending, dtype="<f8").tolist()
        self._leaves = state.pending_leaves

    def _state(self) -> TreesState:
        return TreesState(
            config=self.config,
            mix=self._mix.state(),
            trees=self._trees,
            columns=self._columns,
            histograms=self._histograms[:, : len(self._columns)].astype("<f4").tobytes(),
            pending=np.array(self._rows, dtype="<f8").tobytes(),
            pending_leaves=self._leaves,
            share=self._share,
            blocks=self._blocks,
            resets=self._resets,
        )

    def to_bytes(self) -> bytes:
        """See `Model.to_bytes`."""
        return msgspec.json.encode(self._state())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises `BadModel` for anything that `to_bytes` of a version we read did not write."""
        model = cls.__new__(cls)
        model._build(read_state(raw))
        return model


def _leaf(tree: Tree, row: list[float]) -> int:
    """The leaf of an example; a missing value is NaN, which is above no cut."""
    at = 0
    column, cut, left = tree.column, tree.cut, tree.left
    while (asked := column[at]) >= 0:
        at = left[at] + (cut[at] < row[asked] <= VALUE_MAX)
    return at


def _saves(sums: Array, ridge: float) -> Array:
    """What the best value saves on examples with these sums of gradients and of p (1 - p)."""
    gradient, curvature = sums[..., 0], sums[..., 1]
    saved: Array = 0.5 * gradient**2 / (np.maximum(curvature, 0.0) + ridge)
    return saved
