"""The state of the mixture with trees, and what serving needs of it: plain numbers, no NumPy, no River."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from app.learning import mix_state
from app.learning.contract import BadModel, decode_state
from app.learning.curves import FrozenCurves
from app.learning.logistic import VALUE_MAX, sigmoid
from app.learning.mix_state import MixConfig, MixState

KIND: Final = "open-trees"
STATE_VERSION: Final = 1
LEAF: Final = -1
PRESENT: Final = math.nextafter(-VALUE_MAX, -math.inf)
"""The cut of a node that asks only whether the feature is there."""

Node = float | tuple[str, float, "Node", "Node", float]
"""A leaf's log-odds, or (feature, cut, node of values up to the cut or missing, node of those above, mean of both)."""


class TreesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is chosen, not learned.

    Parameters
    ----------
    mix
        The mixture whose errors the trees learn.
    trees, leaves
        How many trees, and leaves of each, at most.
    columns
        Numbers that the trees see, at most: the first ones met.
    bins
        Classes that a number is sorted into: one for missing, the others by its quantiles.
    grace
        Examples that a leaf sees between two questions whether to split.
    gain_min
        Nats of log loss that a split must have saved on the examples of its leaf.
    ridge
        Evidence that holds a leaf at 0, in units of p (1 - p).
    memory
        Evidence that a leaf's value remembers, alike: its steps do not get smaller than that allows.
    share_rate
        Step size of the share that the trees have in the prediction.
    reset
        Nats by which a tree must be behind (decayed) before it begins anew.
    """

    mix: MixConfig = MixConfig()
    trees: int = 2
    leaves: int = 8
    columns: int = 32
    bins: int = 16
    grace: int = 500
    gain_min: float = 12.0
    ridge: float = 20.0
    memory: float = 5_000.0
    share_rate: float = 0.1
    reset: float = 10.0


class Tree(msgspec.Struct, array_like=True):
    """Nodes side by side; the root is node 0, the children of node i are `left[i]` and `left[i] + 1`.

    Parameters
    ----------
    column
        Which feature a node asks about; `LEAF` for a leaf.
    cut
        Values above it go right; a missing one goes left.
    value, evidence, seen, slot
        Of a leaf: its log-odds, the sum of p (1 - p) behind them, examples since it was last asked whether to split,
        and the histograms that it owns.
    gain
        Nats that the tree saved lately, decayed.
    """

    column: list[int]
    cut: list[float]
    left: list[int]
    value: list[float]
    evidence: list[float]
    seen: list[int]
    slot: list[int]
    gain: float = 0.0


class Column(msgspec.Struct, array_like=True):
    """A number that the trees see.

    Parameters
    ----------
    edges
        Of its bins, ascending.
    fresh
        Newest values, while bins are about to be made of them.
    count, due
        Examples that had it, and how many there are to be when the bins are made anew.
    seen_at
        The last block of examples that had it.
    """

    name: str
    edges: list[float] = []
    fresh: list[float] = []
    count: int = 0
    due: int = 0
    seen_at: int = 0


class TreesState(msgspec.Struct, kw_only=True):
    """All that the mixture with trees knows.

    Parameters
    ----------
    histograms
        Little-endian float32 of shape (slots, columns, bins, 2): sums of gradients and of p (1 - p) since a leaf began.
    pending
        Examples not yet in the histograms: values of the columns (little-endian float64), then of each tree in turn the
        leaf's node, gradient and p (1 - p).
    share
        How much of the trees' log-odds is added to the mixture's, in (0, 1).
    resets
        Trees that began anew.
    """

    kind: str = KIND
    version: int = STATE_VERSION
    config: TreesConfig
    mix: MixState
    trees: list[Tree]
    columns: list[Column] = []
    histograms: bytes = b""
    pending: bytes = b""
    pending_leaves: list[list[tuple[int, float, float]]] = []
    share: float = 0.5
    blocks: int = 0
    resets: int = 0


def stump(slot: int) -> Tree:
    """A tree that says nothing yet."""
    return Tree(column=[LEAF], cut=[0.0], left=[0], value=[0.0], evidence=[0.0], seen=[0], slot=[slot])


def untaught(config: TreesConfig) -> TreesState:
    """The state before the first example."""
    trees = [stump(number * config.leaves) for number in range(config.trees)]
    return TreesState(config=config, mix=mix_state.untaught(config.mix), trees=trees)


def read_state(raw: bytes) -> TreesState:
    """The state that `TreesModel.to_bytes` wrote. Raises `BadModel` for anything else."""
    state = decode_state(raw, TreesState, KIND, STATE_VERSION, "a mixture with trees")
    mix_state.check_state(state.mix)
    config, columns = state.config, len(state.columns)
    slots = config.trees * config.leaves
    whole = (
        len(state.trees) == config.trees
        and all(_is_whole(tree, columns, slots) for tree in state.trees)
        and columns <= config.columns
        and all(len(column.edges) <= config.bins - 2 for column in state.columns)
        and len(state.histograms) == (slots * columns * config.bins * 8)
        and len(state.pending) == len(state.pending_leaves) * columns * 8
        and all(
            len(one) == config.trees
            and all(0 <= leaf[0] < len(t.left) for leaf, t in zip(one, state.trees, strict=True))
            for one in state.pending_leaves
        )
        and 0.0 < state.share < 1.0
    )
    if not whole:
        raise BadModel("the state's parts do not fit together")
    return state


def _is_whole(tree: Tree, columns: int, slots: int) -> bool:
    """Whether all nodes are there, each child behind its parent, so that every walk ends."""
    count = len(tree.column)
    parts = (tree.cut, tree.left, tree.value, tree.evidence, tree.seen, tree.slot)
    return (
        count > 0
        and all(len(part) == count for part in parts)
        and all(0 <= slot < slots for slot in tree.slot)
        and all(
            column == LEAF or (0 <= column < columns and at < left < count - 1)
            for at, (column, left) in enumerate(zip(tree.column, tree.left, strict=True))
        )
    )


def nested(state: TreesState, tree: Tree) -> Node:
    """The tree as serving walks it, with the trees' share in its values."""

    def node(at: int) -> tuple[Node, float, float]:
        """The node, its mean and its evidence."""
        column = tree.column[at]
        if column == LEAF:
            value = state.share * tree.value[at]
            return value, value, tree.evidence[at] + 1.0
        left, mean_left, weight_left = node(tree.left[at])
        right, mean_right, weight_right = node(tree.left[at] + 1)
        weight = weight_left + weight_right
        mean = (weight_left * mean_left + weight_right * mean_right) / weight
        return (state.columns[column].name, tree.cut[at], left, right, mean), mean, weight

    return node(0)[0]


class FrozenTrees:
    """A mixture and the trees that correct it.

    Parameters
    ----------
    mix
        Says what the trees start from.
    trees
        See `Node`.

    Examples
    --------
    >>> tree = ("orders_log", 1.0, -1.0, 2.0, 0.0)
    >>> model = FrozenTrees(FrozenCurves(1, 1.0, {}, {}), (tree,))
    >>> model.open_probability({})
    0.5
    >>> model.explain_one({"orders_log": 3.0})
    {'bias': 1.0, 'orders_log': 2.0}
    """

    __slots__ = ("mix", "trees", "version")

    def __init__(self, mix: FrozenCurves, trees: tuple[Node, ...]) -> None:
        self.version = mix.version
        self.mix = mix
        self.trees = trees

    def open_probability(self, features: Mapping[str, float]) -> float:
        """P(open) in (0, 1). A feature that is missing, or counts as missing, goes left at every cut."""
        p = self.mix.open_probability(features)
        logit = math.log(p / (1.0 - p))
        get = features.get
        for node in self.trees:
            while type(node) is tuple:
                name, cut, left, right, _mean = node
                value = get(name)
                node = right if value is not None and cut < value <= VALUE_MAX else left  # noqa: PLW2901 - walks down
            logit += node  # type: ignore[operator]  # a leaf is a number
        return sigmoid(logit)

    def explain_one(self, features: Mapping[str, float]) -> dict[str, float]:
        """Contribution of each feature in log-odds; with ``bias`` they sum to the logit of the probability.

        What a tree says beyond its mean is shared out along the path: each node gives its feature what the mean changes
        by going on.

        References
        ----------
        Saabas, 2014: Interpreting random forests.
        """
        shares = self.mix.explain_one(features)
        for root in self.trees:
            node = root
            shares["bias"] += _mean(root)
            while isinstance(node, tuple):
                name, cut, left, right, mean = node
                value = features.get(name)
                node = right if value is not None and cut < value <= VALUE_MAX else left
                shares[name] = shares.get(name, 0.0) + _mean(node) - mean
        return shares


def _mean(node: Node) -> float:
    return node[4] if isinstance(node, tuple) else node


def freeze(state: TreesState, version: int) -> FrozenTrees:
    """Mixture and trees as they are served."""
    trees = (nested(state, tree) for tree in state.trees)
    return FrozenTrees(mix_state.freeze(state.mix, version), tuple(tree for tree in trees if tree))
