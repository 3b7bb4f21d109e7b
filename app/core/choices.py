"""What has been learned about variants, as plain numbers that a worker reads from a snapshot.

For each campaign: the probability that each variant is the best one (Thompson sampling draws a variant with just that
probability, so it is the propensity and nothing has to be sampled), a linear model a variant (LinUCB), and the
variants that the guard on opt-outs has stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from app.core.profile import HOURS_PER_WEEK

CONTEXT: Final[tuple[tuple[str, float], ...]] = (
    ("open_logit", 0.4),
    ("open_fast_logit", 0.4),
    ("since_app_log_h", 0.2),
    ("hour_sin", 1.0),
    ("hour_cos", 1.0),
    ("weekend=", 1.0),
    ("orders_log", 0.4),
    ("affinity_log", 0.4),
    ("d=ios", 1.0),
    ("d=android", 1.0),
    ("d=web", 1.0),
)
"""The logged features that a contextual choice looks at, and what brings each to about [-1, 1]."""
DIMENSIONS: Final = len(CONTEXT) + 1
_LIMIT = 2.0

UCB_WIDTH: Final = 0.5
"""Standard errors that LinUCB adds for what it does not know yet (alpha of Li et al. 2010)."""


def context_of(features: Mapping[str, float]) -> list[float]:
    """The context vector of a decision, shape (`DIMENSIONS`,): a constant 1, then the scaled, clipped features."""
    get = features.get
    return [1.0, *(min(max(get(name, 0.0) * scale, -_LIMIT), _LIMIT) for name, scale in CONTEXT)]


@dataclass(frozen=True, slots=True)
class LinearArm:
    """Ridge regression of the open on the context: coefficients and the inverse of the information matrix.

    References
    ----------
    Li, Chu, Langford, Schapire, 2010: A Contextual-Bandit Approach to Personalized News Article Recommendation.
    """

    theta: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]

    def mean(self, x: list[float]) -> float:
        """The estimated open rate in this context."""
        return sum(weight * value for weight, value in zip(self.theta, x, strict=True))

    def upper(self, x: list[float]) -> float:
        """The estimate plus `UCB_WIDTH` standard errors."""
        spread = sum(
            value * sum(entry * other for entry, other in zip(row, x, strict=True))
            for value, row in zip(x, self.inverse, strict=True)
        )
        return self.mean(x) + UCB_WIDTH * math.sqrt(max(spread, 0.0))


UNTAUGHT: Final = LinearArm(
    (0.0,) * DIMENSIONS,
    tuple(tuple(float(row == column) for column in range(DIMENSIONS)) for row in range(DIMENSIONS)),
)


@dataclass(frozen=True, slots=True)
class CampaignChoices:
    """What is known of one campaign's variants, by name; a variant that is missing has taught nothing yet."""

    best: Mapping[str, float] = field(default_factory=dict)
    linear: Mapping[str, LinearArm] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Choices:
    """A snapshot: what is known of every campaign. Version 0 knows nothing."""

    version: int = 0
    campaigns: Mapping[str, CampaignChoices] = field(default_factory=dict)
    hours: tuple[float, ...] = (1.0,) * HOURS_PER_WEEK
    """By hour of the week, how well people respond relative to the mean (`app.core.send_time`)."""


NOTHING_KNOWN: Final = Choices()
_NO_CAMPAIGN = CampaignChoices()


def of_campaign(choices: Choices, name: str) -> CampaignChoices:
    """What is known of a campaign, perhaps nothing."""
    return choices.campaigns.get(name, _NO_CAMPAIGN)
