"""The guard: evidence that a variant drives more people away than is tolerated, valid at every look.

Each matured send is a coin: did the user opt out before the label horizon? Against "the rate is at most `limit`" runs
a bet that it is `ratio` times as high; the mean of such bets over a grid of ratios is a non-negative supermartingale
that starts at 1 whenever the rate is at most `limit`, whatever chose the sends (Ville, 1939; Ramdas, Grünwald, Vovk,
Shafer, 2023: Game-Theoretic Statistics and Safe Anytime-Valid Inference). So the chance that it ever reaches
1 / alpha without cause is at most alpha, for counts however small.
"""

from __future__ import annotations

import math
from typing import Final

RATIOS: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)
GUARD_ALPHA: Final = 0.01
"""Chance of ever stopping a variant without cause; of each variant, as a wrong stop costs little."""


def guard_log_e(sends: int, opt_outs: int, limit: float) -> float:
    """Logarithm of the evidence that opt-outs are more frequent than `limit`; 0 without data or without a limit.

    Parameters
    ----------
    sends, opt_outs
        Matured sends, and those of them whose user opted out.
    limit
        The tolerated rate, in (0, 1); anything else is no limit.

    Examples
    --------
    >>> guard_log_e(1000, 5, 0.01) < 0 < guard_log_e(1000, 30, 0.01)
    True
    """
    if not 0.0 < limit < 1.0:
        return 0.0
    ratios = [ratio for ratio in RATIOS if ratio * limit < 1.0] or [0.5 + 0.5 / limit]
    stayed = max(sends - opt_outs, 0)
    bets = [opt_outs * math.log(ratio) + stayed * (math.log1p(-ratio * limit) - math.log1p(-limit)) for ratio in ratios]
    best = max(bets)
    return best + math.log(sum(math.exp(bet - best) for bet in bets) / len(bets))


def must_stop(sends: int, opt_outs: int, limit: float) -> bool:
    """Whether the variant must be stopped: the evidence has reached 1 / `GUARD_ALPHA`."""
    return guard_log_e(sends, opt_outs, limit) >= -math.log(GUARD_ALPHA)
