"""Before an experiment: how many units it needs, and what it can find with those it has.

Normal approximation for two independent rates, two-sided, unpooled variance. With several variants each is compared
with the control at alpha divided by their number (Bonferroni: the first step of Holm, which the report uses).

References
----------
Fleiss, Levin, Paik, 2003: Statistical Methods for Rates and Proportions, chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scipy import stats

from app.experiments.sequential import mixture_radius

UNITS_MAX: Final = 10**10


@dataclass(frozen=True, slots=True)
class Design:
    """An experiment as planned.

    Parameters
    ----------
    baseline
        Rate of the control, in (0, 1).
    variants
        Number of variants without the control, at least 1.
    ratio
        Units of each variant for one of the control.
    alpha, power
        Chance of any false alarm; chance of finding an effect of the planned size.

    Raises
    ------
    ValueError
        When a number is outside its range.
    """

    baseline: float
    variants: int = 1
    ratio: float = 1.0
    alpha: float = 0.05
    power: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.baseline < 1:
            raise ValueError(f"a baseline rate is between 0 and 1, not {self.baseline}")
        if self.variants < 1 or self.ratio <= 0 or not 0 < self.alpha < 1 or not self.alpha < self.power < 1:
            raise ValueError("variants >= 1, ratio > 0, 0 < alpha < power < 1")

    @property
    def alpha_each(self) -> float:
        """Of one comparison with the control."""
        return self.alpha / self.variants

    def variance(self, effect: float, units: float) -> float:
        """Variance of the difference of rates with `units` of the control."""
        treated = self.baseline + effect
        return (self.baseline * (1 - self.baseline) + treated * (1 - treated) / self.ratio) / units


def power_of(design: Design, effect: float, units: float) -> float:
    """Chance that the fixed-horizon test finds an absolute difference `effect` with `units` of the control."""
    error = math.sqrt(design.variance(effect, units))
    critical = float(stats.norm.isf(design.alpha_each / 2))
    return float(stats.norm.sf(critical - abs(effect) / error) + stats.norm.cdf(-critical - abs(effect) / error))


def power_always(design: Design, effect: float, units: float) -> float:
    """Chance that the confidence sequence excludes 0 at `units` of the control, if nobody stopped before (a lower
    bound of its power: it may have excluded 0 earlier). The mixture expects the effect that is looked for.
    """
    variance = design.variance(effect, units)
    radius = mixture_radius(variance, tau=abs(effect), alpha=design.alpha_each)
    return float(stats.norm.sf((radius - abs(effect)) / math.sqrt(variance)))


def sample_size(design: Design, effect: float, *, always: bool = False) -> int:
    """Units of the control that find an absolute difference `effect` with the design's power.

    Parameters
    ----------
    always
        For the confidence sequence instead of the fixed-horizon test.

    Raises
    ------
    ValueError
        When the treated rate would leave (0, 1), or `effect` is 0.

    Examples
    --------
    >>> sample_size(Design(baseline=0.15), 0.03)
    2400
    """
    if not effect or not 0 < design.baseline + effect < 1:
        raise ValueError(f"an effect of {effect:g} on a rate of {design.baseline:g} cannot be planned for")
    power = power_always if always else power_of
    return _first(lambda units: power(design, effect, units) >= design.power)


def detectable_effect(design: Design, units: int, *, always: bool = False) -> float:
    """The smallest increase of the rate that `units` of the control find with the design's power.

    Raises
    ------
    ValueError
        When not even an increase to 1 would be found.
    """
    power = power_always if always else power_of
    low, high = 0.0, (1 - design.baseline) * (1 - 1e-9)
    if power(design, high, units) < design.power:
        raise ValueError(f"{units} units find no effect at all with power {design.power:g}")
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if power(design, middle, units) >= design.power else (middle, high)
    return high


def _first(enough: Callable[[int], bool]) -> int:
    """The smallest number that is enough, of a question that stays answered."""
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > UNITS_MAX:
            raise ValueError(f"more than {UNITS_MAX:,} units")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
