"""What another way of choosing variants would have earned, from decisions that were made by this one.

Every logged decision says with which probability its variant was chosen. Weighing each outcome by how much likelier the
other policy would have chosen it (inverse propensity) gives an estimate without trying it out. Three of them:

- IPS: unbiased without clipping, and of high variance.
- SNIPS: the weights divided by their sum: a little bias, much less variance, and never outside the rewards' range.
- DR: a model of the reward, corrected by the weighted errors it makes: right if either the model or the propensities
  are. The model is fitted on the other half of the data (cross-fitting), or it would excuse itself.

References
----------
Swaminathan, Joachims, 2015: The Self-Normalized Estimator for Counterfactual Learning.
Dudík, Langford, Li, 2011: Doubly Robust Policy Evaluation and Learning.
Kish, 1965: Survey Sampling (the effective sample size).
Efron, 1979 (bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

EFFECTIVE_MIN: Final = 100.0
"""Fewer effective decisions than this are warned of."""
EVENTS_MIN: Final = 20
"""Fewer effective rewarded decisions than this are warned of: the interval rests on a handful of them."""
CLIPPED_MAX: Final = 0.05
RESAMPLES: Final = 1000
_RIDGE = 1.0
_FOLDS = 2


@dataclass(frozen=True, slots=True)
class Log:
    """Logged decisions of one campaign, n of them, between k variants.

    Parameters
    ----------
    arms
        Index of the variant shown, shape (n,).
    rewards
        What came of it, shape (n,).
    behaviour
        Probability with which the variant was chosen, shape (n,), in (0, 1].
    contexts
        What was known, shape (n, d); d may be 0.

    Raises
    ------
    ValueError
        When shapes differ, nothing was logged, or a probability is 0 or more than 1: such logs support no estimate.
    """

    arms: npt.NDArray[np.int64]
    rewards: Array
    behaviour: Array
    contexts: Array

    def __post_init__(self) -> None:
        size = len(self.arms)
        if not size or not size == len(self.rewards) == len(self.behaviour) == len(self.contexts):
            raise ValueError(
                "an evaluation needs as many arms as rewards, probabilities and contexts, and at least one"
            )
        if not bool(((self.behaviour > 0) & (self.behaviour <= 1)).all()):
            raise ValueError("a logged probability is not in (0, 1]: the logs cannot support an estimate")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean reward a decision, and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a policy would have earned a decision, and how much of the log says so."""

    decisions: int
    logged: Estimate
    ips: Estimate
    snips: Estimate
    dr: Estimate
    effective: float
    clipped: float
    """Share of the decisions whose weight was cut."""
    warnings: list[str] = field(default_factory=list)


def weights_of(log: Log, target: Array, *, weight_max: float) -> Array:
    """How much likelier the target policy chooses what was shown, at most `weight_max`, shape (n,).

    Parameters
    ----------
    target
        Probability of every variant under the target policy, shape (n, k).
    """
    shown = target[np.arange(len(log.arms)), log.arms]
    return np.asarray(np.minimum(shown / log.behaviour, weight_max), dtype=np.float64)


def effective_size(weights: Array) -> float:
    """Kish's effective sample size: how many unweighted decisions would say as much.

    Examples
    --------
    >>> effective_size(np.array([1.0, 1.0])), effective_size(np.array([2.0, 0.0]))
    (2.0, 1.0)
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def evaluate(
    log: Log,
    target: Array,
    *,
    weight_max: float = 100.0,
    alpha: float = 0.05,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Estimate the mean reward of a policy.

    Parameters
    ----------
    target
        Probability of every variant under it, shape (n, k), rows summing to at most 1 (what is missing was not sent,
        and earns nothing).
    weight_max
        Weights are cut there: bias for variance. The share that was cut is reported.
    alpha
        1 - coverage of the intervals: percentiles of a Poisson bootstrap of decisions with `seed`.

    Raises
    ------
    ValueError
        When `target` has another shape than the log.
    """
    if target.ndim != 2 or len(target) != len(log.arms) or int(log.arms.max()) >= target.shape[1]:
        raise ValueError(f"probabilities of shape {target.shape} for {len(log.arms)} decisions")
    weights = weights_of(log, target, weight_max=weight_max)
    predicted = _cross_fitted(log, target.shape[1])
    expected = (target * predicted).sum(axis=1)
    own = predicted[np.arange(len(log.arms)), log.arms]
    parts = np.stack([log.rewards, weights * log.rewards, weights, expected + weights * (log.rewards - own)])
    draws = _bootstrap(parts, seed, resamples)
    uncut = target[np.arange(len(log.arms)), log.arms] / log.behaviour
    found = Evaluation(
        decisions=len(log.arms),
        logged=_estimate(parts[0].mean(), draws[0], alpha),
        ips=_estimate(parts[1].mean(), draws[1], alpha),
        snips=_estimate(_ratio(parts[1].mean(), parts[2].mean()), _ratios(draws[1], draws[2]), alpha),
        dr=_estimate(parts[3].mean(), draws[3], alpha),
        effective=effective_size(weights),
        clipped=float((uncut > weight_max).mean()),
    )
    found.warnings.extend(_warnings(found, effective_size(weights * np.abs(log.rewards))))
    return found


def _cross_fitted(log: Log, k: int) -> Array:
    """Predicted reward of every variant for every decision, shape (n, k), by a model that never saw the decision.

    Ridge regression on the context and an indicator of the variant, which shrinks rare variants to the mean.
    """
    n, d = log.contexts.shape
    predicted = np.empty((n, k))
    fold = np.arange(n) % _FOLDS
    design = np.zeros((n, d + k))
    design[:, :d] = log.contexts
    design[np.arange(n), d + log.arms] = 1.0
    for held_out in range(_FOLDS):
        train, judged = fold != held_out, fold == held_out
        if not train.any():
            predicted[judged] = 0.0
            continue
        mean = log.rewards[train].mean()
        rows = design[train]
        penalty = _RIDGE * np.eye(d + k)
        coefficients = np.linalg.solve(rows.T @ rows + penalty, rows.T @ (log.rewards[train] - mean))
        predicted[judged] = mean + (log.contexts[judged] @ coefficients[:d])[:, None] + coefficients[None, d:]
    return np.clip(predicted, log.rewards.min(), log.rewards.max())


def _bootstrap(parts: Array, seed: int, resamples: int) -> Array:
    """Means of each part, shape (parts, resamples): in each a decision counts a Poisson(1) number of times."""
    rng = np.random.default_rng(seed)
    means = np.empty((len(parts), resamples))
    for at in range(resamples):
        counts = np.asarray(rng.poisson(1.0, parts.shape[1]), dtype=np.float64)
        means[:, at] = parts @ counts / max(counts.sum(), 1.0)
    return means


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else 0.0


def _ratios(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _estimate(value: float, draws: Array, alpha: float) -> Estimate:
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return Estimate(float(value), float(low), float(high))


def _warnings(found: Evaluation, events: float) -> list[str]:
    said = []
    if found.effective < EFFECTIVE_MIN:
        said.append(
            f"effective sample size {found.effective:.0f} of {found.decisions}: the log hardly ever did what this "
            "policy would do; the estimate cannot be relied on"
        )
    if events < EVENTS_MIN:
        said.append(f"only {events:.0f} effective rewarded decisions: the interval may be too narrow")
    if found.clipped > CLIPPED_MAX:
        said.append(f"{found.clipped:.0%} of the weights were cut: the estimate is biased towards what was logged")
    return said
