"""Clusters of weighted points: how many there are, and where. The offline half, over a hundred points or so.

Ward's tree gives a beginning for every number of clusters at once, without dice; Lloyd's steps refine it. How good a
clustering is says the silhouette (Rousseeuw, 1987), in which a point's distances hold the spread within points, so that
a hundred points are judged much as the thousands of users behind them would be.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app.learning.microclusters import squared_distances

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
LLOYD_STEPS_MAX: Final = 20


class Clustering(NamedTuple):
    """Centroids (a row each), the label of each point, what is left of variance, and the mean silhouette."""

    centroids: Array
    labels: Labels
    inertia: float
    silhouette: float


def ward_labels(weights: Array, points: Array, count_max: int) -> dict[int, Labels]:
    """By number of clusters, 1 to `count_max`, the labels that Ward's tree gives."""
    size = len(weights)
    labels = np.arange(size)
    weight, mean = weights.copy(), points.copy()
    cost = squared_distances(mean, mean) * (weight[:, None] * weight / (weight[:, None] + weight))
    np.fill_diagonal(cost, np.inf)
    found: dict[int, Labels] = {}
    for left in range(size, 0, -1):
        if left <= count_max:
            found[left] = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        if left == 1:
            break
        a, b = sorted(divmod(int(np.argmin(cost)), size))
        whole = weight[a] + weight[b]
        mean[a] = (weight[a] * mean[a] + weight[b] * mean[b]) / whole
        weight[a] = whole
        labels[labels == b] = a
        cost[b, :] = cost[:, b] = np.inf
        row = ((mean - mean[a]) ** 2).sum(axis=1) * (weight * whole / (weight + whole))
        row[np.isinf(cost[a])] = np.inf
        row[a] = np.inf
        cost[a, :] = cost[:, a] = row
    return found


def lloyd(weights: Array, points: Array, centroids: Array) -> tuple[Array, Labels, float]:
    """Weighted k-means from a beginning; an empty cluster is dropped. Returns centroids, labels and inertia."""
    labels = np.zeros(len(points), np.int64)
    for step in range(LLOYD_STEPS_MAX):
        distances = squared_distances(points, centroids)
        now = distances.argmin(axis=1)
        used = np.unique(now)
        if step and len(used) == len(centroids) and (now == labels).all():
            break
        labels = np.searchsorted(used, now)
        centroids = means_of(weights, points, labels)
    inertia = float((weights * squared_distances(points, centroids)[np.arange(len(points)), labels]).sum())
    return centroids, labels, inertia


def means_of(weights: Array, points: Array, labels: Labels) -> Array:
    """The weighted mean of each cluster."""
    member = (labels == np.arange(int(labels.max()) + 1)[:, None]) * weights
    means: Array = member @ points / member.sum(axis=1)[:, None]
    return means


def between(points: Array, within: Array) -> Array:
    """The root of the mean squared distance of two users of two points, of one point for the diagonal."""
    apart: Array = np.sqrt(squared_distances(points, points) + within[:, None] + within)
    return apart


def silhouette(weights: Array, distances: Array, labels: Labels) -> float:
    """The weighted mean silhouette in [-1, 1]; 0 for one cluster.

    Parameters
    ----------
    distances
        Between the users of each pair of points, see `between`.
    """
    count = int(labels.max()) + 1
    if count < 2:
        return 0.0
    member = (labels[:, None] == np.arange(count)).astype(np.float64) * weights[:, None]
    size = member.sum(axis=0)
    sums = distances @ member
    rows = np.arange(len(labels))
    # A user is not compared with itself: one of its own point is left out where there is more than one.
    own_weight = np.maximum(size[labels] - 1.0, 1e-9)
    own = np.maximum(sums[rows, labels] - distances[rows, rows], 0.0) / own_weight
    others = sums / size
    others[rows, labels] = np.inf
    nearest = others.min(axis=1)
    top = np.maximum(own, nearest)
    scores = np.where((size[labels] > 1.0) & (top > 0), (nearest - own) / np.maximum(top, 1e-12), 0.0)
    return float(np.average(scores, weights=weights))


def without_tiny(weights: Array, points: Array, centroids: Array, share_min: float) -> tuple[Array, Labels, float]:
    """Refine, and dissolve clusters of less than `share_min`, the smallest first: theirs go to the nearest other."""
    while True:
        centroids, labels, inertia = lloyd(weights, points, centroids)
        sizes = np.bincount(labels, weights, len(centroids)) / weights.sum()
        if len(centroids) == 1 or sizes.min() >= share_min:
            return centroids, labels, inertia
        centroids = np.delete(centroids, int(sizes.argmin()), axis=0)


def clusterings(
    weights: Array, points: Array, within: Array, count_max: int, share_min: float
) -> dict[int, Clustering]:
    """The best clustering of each number of clusters that there is without tiny ones."""
    distances = between(points, within)
    found: dict[int, Clustering] = {}
    for labels in ward_labels(weights, points, count_max).values():
        refined = without_tiny(weights, points, means_of(weights, points, labels), share_min)
        known = found.get(len(refined[0]))
        if known is None or refined[2] < known.inertia:
            found[len(refined[0])] = Clustering(*refined, silhouette(weights, distances, refined[1]))
    return found


def beginning_at(weights: Array, points: Array, within: Array, centroids: Array, share_min: float) -> Clustering:
    """The clustering that follows from these centroids."""
    refined = without_tiny(weights, points, centroids, share_min)
    return Clustering(*refined, silhouette(weights, between(points, within), refined[1]))
