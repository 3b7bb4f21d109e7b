"""What every comparison starts from: so many units, so many of them did it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """Independent units of one variant, and how many had the outcome.

    Raises
    ------
    ValueError
        When `successes` is not in [0, `units`].

    Examples
    --------
    >>> Sample(200, 30).rate
    0.15
    """

    units: int
    successes: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.units:
            raise ValueError(f"{self.successes} successes of {self.units} units")

    @property
    def rate(self) -> float:
        """The share with the outcome; 0 of nobody."""
        return self.successes / self.units if self.units else 0.0

    @property
    def failures(self) -> int:
        """Units without the outcome."""
        return self.units - self.successes

    @property
    def variance(self) -> float:
        """Estimated variance of `rate`, from the rate with one success and one failure added, so never 0.

        The addition (Agresti and Caffo, 2000: Simple and Effective Confidence Intervals for Proportions) matters
        only where a few units seem to agree; infinite for nobody.
        """
        if not self.units:
            return float("inf")
        rate = (self.successes + 1) / (self.units + 2)
        return rate * (1 - rate) / self.units


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference of rates (treatment minus control) with what the data cannot exclude.

    `p_value` is that of no difference, under the same validity as the interval: at one look that was fixed before
    the data (`app.experiments.fixed`), or at every look (`app.experiments.sequential`).
    """

    difference: float
    low: float
    high: float
    p_value: float
